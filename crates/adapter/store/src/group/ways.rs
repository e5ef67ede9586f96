//! How one member's bytes come to another.

use super::message::{Answer, Ask};
use kernel::NodeId;
use node::BoxFuture;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store's member {node} is not reached: {why}")]
pub struct CarryError {
    pub node: NodeId,
    pub why: String,
}

/// The way between members.
pub trait Carry: Send + Sync + 'static {
    /// Brings `body` to the member on that node, whose
    /// [`crate::EmbeddedStore::answer`] is what comes back.
    ///
    /// * `within`: afterwards nobody waits for the answer.
    fn call(
        &self,
        to: NodeId,
        body: Vec<u8>,
        within: Duration,
    ) -> BoxFuture<'_, Result<Vec<u8>, CarryError>>;
}

/// None: this store is alone for good.
#[derive(Clone)]
pub(crate) struct Ways(pub Option<Arc<dyn Carry>>);

impl Ways {
    pub async fn ask(&self, to: u64, ask: &Ask, within: Duration) -> Result<Answer, CarryError> {
        let node = NodeId(to);
        let failed = |why: String| CarryError { node, why };
        let Some(carry) = &self.0 else {
            return Err(failed("this store is alone".to_owned()));
        };
        let body = ask.encode().map_err(failed)?;
        let answer = carry.call(node, body, within);
        let answer = match tokio::time::timeout(within, answer).await {
            Ok(answer) => answer?,
            Err(_) => return Err(failed("no answer in time".to_owned())),
        };
        Answer::decode(&answer).map_err(failed)
    }
}
