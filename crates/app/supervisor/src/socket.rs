//! Answers on the supervisor's socket.
//!
//! In: requests. Out: listeners and status at once, the rest as [`Event`]s.
//! Never: decides; that is the one loop's.

use crate::Event;
use crate::listeners::Listeners;
use ipc::{Connection, IpcError, Listener};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use wire::supervise::{FromSupervisor, SupervisorStatus, ToSupervisor};

const CONNECTIONS_MAX: usize = 64;
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

#[derive(Clone)]
pub struct Desk {
    pub listeners: Arc<Listeners>,
    pub status: watch::Receiver<SupervisorStatus>,
    pub events: mpsc::Sender<Event>,
}

pub async fn serve(listener: Listener, desk: Desk) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok(connection) => {
                let desk = desk.clone();
                tokio::spawn(async move {
                    if let Err(error) = answer(connection, &desk).await {
                        tracing::debug!(%error, "a connection ended early");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting failed");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn answer(mut connection: Connection, desk: &Desk) -> Result<(), IpcError> {
    while let Some((request, _)) = connection.receive::<ToSupervisor>().await? {
        match request {
            ToSupervisor::TakeListeners => {
                let (names, descriptors) = desk.listeners.beside();
                let answer = FromSupervisor::Listeners(names);
                connection
                    .send_with_descriptors(&answer, &descriptors)
                    .await?;
            }
            ToSupervisor::Status => {
                let status = desk.status.borrow().clone();
                connection.send(&FromSupervisor::Status(status)).await?;
            }
            ToSupervisor::Restart(child) => {
                let answer = decided(desk, |reply| Event::Restart(child, reply)).await;
                connection.send(&answer).await?;
            }
            ToSupervisor::Inspect { program } => {
                let answer = decided(desk, |reply| Event::Inspect(program, reply)).await;
                connection.send(&answer).await?;
            }
            ToSupervisor::Upgrade { program } => {
                let answer = decided(desk, |reply| Event::Upgrade(program, reply)).await;
                connection.send(&answer).await?;
            }
            ToSupervisor::Shutdown => {
                // The loop answers when all is down, as its last deed.
                let _ = desk.events.send(Event::Shutdown(Some(connection))).await;
                return Ok(());
            }
        }
    }
    Ok(())
}

/// What the one loop answers.
async fn decided(
    desk: &Desk,
    event: impl FnOnce(oneshot::Sender<FromSupervisor>) -> Event,
) -> FromSupervisor {
    let (reply, replied) = oneshot::channel();
    let asked = desk.events.send(event(reply)).await;
    match (asked, replied.await) {
        (Ok(()), Ok(answer)) => answer,
        _ => FromSupervisor::Failed {
            why: "the node is going down".to_owned(),
        },
    }
}
