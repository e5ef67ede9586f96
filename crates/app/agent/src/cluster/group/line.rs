//! The way between members, over the agents' transport.

use kernel::NodeId;
use net::Transport;
use node::BoxFuture;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use store::{Carry, CarryError};
use wire::cluster::{STORE, StoreGroup};

/// The transport, once there is one.
pub type Network = Arc<OnceLock<Transport>>;

pub struct Line {
    pub network: Network,
    pub group: StoreGroup,
}

impl Carry for Line {
    fn call(
        &self,
        to: NodeId,
        body: Vec<u8>,
        within: Duration,
    ) -> BoxFuture<'_, Result<Vec<u8>, CarryError>> {
        Box::pin(async move {
            let failed = |why: String| CarryError { node: to, why };
            let transport = self.network.get();
            let transport = transport.ok_or_else(|| failed("no network yet".to_owned()))?;
            let mut question = Vec::with_capacity(1 + body.len());
            question.push(self.group.byte());
            question.extend(body);
            let answer = transport.call(to, STORE, question, within).await;
            answer
                .map(|answer| answer.to_vec())
                .map_err(|error| failed(error.to_string()))
        })
    }
}
