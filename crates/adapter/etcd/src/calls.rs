//! How often and how long etcd is asked.
//!
//! Holds: a call ends within [`CALL_SPAN_MAX`]; what may have been done is not
//! asked for twice, but what only reads.

use crate::trouble::{self, Trouble};
use etcd_client::Error;
use node::store::StoreError;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

pub const CALL_SPAN_MAX: Duration = Duration::from_secs(5);
/// What was surely not done is given up after this.
const UNSENT_SPAN_MAX: Duration = Duration::from_secs(3);
const AGAIN: Duration = Duration::from_millis(100);

/// Why there is no answer.
#[derive(Debug)]
pub enum Unanswered {
    Store(StoreError),
    Compacted,
    Gone,
}

impl From<Unanswered> for StoreError {
    fn from(why: Unanswered) -> Self {
        match why {
            Unanswered::Store(error) => error,
            // Where a caller knows better, it does not ask for this.
            Unanswered::Compacted | Unanswered::Gone => Self::Unknown,
        }
    }
}

/// Of something that must not be done twice.
pub async fn write<T, F>(ask: impl Fn() -> F) -> Result<T, Unanswered>
where
    F: Future<Output = Result<T, Error>>,
{
    let began = Instant::now();
    loop {
        let unknown = Err(Unanswered::Store(StoreError::Unknown));
        let Ok(answer) = timeout_at(began + CALL_SPAN_MAX, ask()).await else {
            return unknown;
        };
        let error = match answer {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        match trouble::of(&error) {
            Trouble::Unsent if began.elapsed() > UNSENT_SPAN_MAX => {
                return Err(Unanswered::Store(StoreError::NoQuorum));
            }
            Trouble::Unsent => sleep(AGAIN).await,
            Trouble::Unknown => return unknown,
            Trouble::Refused(why) => return Err(Unanswered::Store(why)),
            Trouble::Compacted => return Err(Unanswered::Compacted),
            Trouble::Gone => return Err(Unanswered::Gone),
        }
    }
}

/// Of something that changes nothing, or nothing more the second time.
pub async fn read<T, F>(ask: impl Fn() -> F) -> Result<T, Unanswered>
where
    F: Future<Output = Result<T, Error>>,
{
    let until = Instant::now() + CALL_SPAN_MAX;
    loop {
        let silent = Err(Unanswered::Store(StoreError::NoQuorum));
        let Ok(answer) = timeout_at(until, ask()).await else {
            return silent;
        };
        let error = match answer {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        match trouble::of(&error) {
            Trouble::Unsent | Trouble::Unknown if Instant::now() + AGAIN > until => {
                return silent;
            }
            Trouble::Unsent | Trouble::Unknown => sleep(AGAIN).await,
            Trouble::Refused(why) => return Err(Unanswered::Store(why)),
            Trouble::Compacted => return Err(Unanswered::Compacted),
            Trouble::Gone => return Err(Unanswered::Gone),
        }
    }
}
