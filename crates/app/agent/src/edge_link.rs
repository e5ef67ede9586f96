//! The agent's side of the edge's socket: pushes the newest snapshot, hears
//! readings and evidence, and comes back when the edge does.

use crate::cluster::content;
use crate::machine::now;
use crate::shared::{Message, Shared};
use ipc::Connection;
use node::NodeEvent;
use node::driver::DriverEvent;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use wire::edge::{EdgeSnapshot, FromEdge, ToEdge};

const RETRY: Duration = Duration::from_millis(50);

/// Runs for ever.
pub async fn run(shared: Arc<Shared>, messages: mpsc::Sender<Message>) {
    let socket = shared.layout.edge_socket();
    loop {
        if let Ok(connection) = ipc::connect(&socket).await {
            serve(&shared, &messages, connection).await;
            shared.edge_connected.send_replace(false);
            tracing::warn!("edge gone");
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn serve(shared: &Arc<Shared>, inbox: &mpsc::Sender<Message>, connection: Connection) {
    let (mut sender, mut receiver) = connection.into_split();
    let mut snapshots = shared.snapshot.subscribe();
    snapshots.mark_changed();
    shared.edge_connected.send_replace(true);
    tracing::info!("edge connected");
    let mut pid = 0;
    loop {
        tokio::select! {
            changed = snapshots.changed() => {
                if changed.is_err() { return; }
                let snapshot: EdgeSnapshot = (*snapshots.borrow_and_update().clone()).clone();
                if snapshot.version > 0
                    && sender.send(&ToEdge::Snapshot(Box::new(snapshot))).await.is_err()
                {
                    return;
                }
            }
            frame = receiver.receive::<FromEdge>() => {
                let Ok(Some((said, _))) = frame else { return };
                heard(shared, inbox, &mut pid, said).await;
            }
        }
    }
}

async fn heard(
    shared: &Arc<Shared>,
    messages: &mpsc::Sender<Message>,
    edge_pid: &mut u32,
    said: FromEdge,
) {
    match said {
        FromEdge::Applied { version } => {
            shared.edge_applied.send_replace(version);
        }
        FromEdge::Refused {
            version,
            newer: Some(newer),
            ..
        } => outrank(shared, version, newer),
        FromEdge::Refused { version, why, .. } => {
            tracing::error!(version, why, "snapshot refused");
        }
        FromEdge::Readings(readings) => {
            shared.readings.send_replace(readings);
        }
        FromEdge::EndpointFailed {
            replica,
            why,
            others_answer,
        } => {
            let event = NodeEvent::EndpointFailed {
                replica,
                why,
                others_answer,
            };
            // The loop outlives this task; a closed channel means the end.
            let _ = messages.send(Message::Node(event)).await;
        }
        FromEdge::ContentFailed { hash, why } => {
            tracing::warn!(%hash, why, "the edge cannot serve a file");
            let shared = Arc::clone(shared);
            tokio::spawn(async move { content::act::doubt(&shared, hash).await });
        }
        FromEdge::PeerFailed { node, why } => shared.cluster.doubt(node, &why).await,
        FromEdge::ComponentStarted { replica } => {
            let event = DriverEvent::Started {
                replica,
                pid: *edge_pid,
                address: None,
                at: now(),
            };
            let _ = messages.send(Message::Node(NodeEvent::Driver(event))).await;
        }
        FromEdge::ComponentFailed { replica, why } => {
            let at = now();
            let event = DriverEvent::StartFailed { replica, why, at };
            let _ = messages.send(Message::Node(NodeEvent::Driver(event))).await;
        }
        FromEdge::Hello { pid } => *edge_pid = pid,
        FromEdge::Listeners(_) => {}
    }
}

/// Versions are made from the wall clock, which may have gone back since the
/// edge took its snapshot: the same again, under a larger one.
fn outrank(shared: &Shared, version: u64, newer: u64) {
    tracing::warn!(version, newer, "the edge has a newer version in force");
    shared.snapshot.send_if_modified(|snapshot| {
        if snapshot.version > newer {
            return false;
        }
        Arc::make_mut(snapshot).version = newer + 1;
        true
    });
}
