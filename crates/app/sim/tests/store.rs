//! The model store against the suite that all stores pass.

use sim::store::ModelStore;
use std::time::Duration;
use store::suite::{Subject, all};

#[test]
fn the_model_is_a_store_like_the_others() {
    let model = ModelStore::new(64);
    let clock = model.clone();
    let pause = || -> node::BoxFuture<'_, ()> {
        clock.pass(Duration::from_millis(50));
        Box::pin(std::future::ready(()))
    };
    let now = || Duration::from_nanos(clock.now().0);
    let subject = Subject {
        store: &model,
        history_revisions: 64,
        pause: &pause,
        now: &now,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(all(&subject));
}
