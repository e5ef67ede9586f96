//! The live visitor counter: who has the events open is here.
//!
//! `GET` answers `{"visitors":3,"seen":17}`; at a path that ends in `/events`
//! it streams the same as visitors come and go.

use actor_sdk::{Actor, Change, Request, Response, publish};

const CHANNEL: &str = "visitors";

actor_sdk::export!(Visitors);

#[derive(Default)]
struct Visitors {
    /// Here now; the host counts, so that a fresh actor is right at once.
    here: u32,
    /// Since this actor was started afresh.
    seen: u64,
}

impl Visitors {
    fn count(&self) -> String {
        format!(r#"{{"visitors":{},"seen":{}}}"#, self.here, self.seen)
    }

    fn tell(&mut self, change: &Change) {
        self.here = change.subscribers;
        publish(CHANNEL, &self.count());
    }
}

impl Actor for Visitors {
    fn handle(&mut self, request: Request) -> Response {
        if !matches!(&*request.method, "GET" | "HEAD") {
            return Response::new(405).header("allow", "GET, HEAD");
        }
        if request.path().ends_with("/events") {
            return Response::events(CHANNEL);
        }
        Response::json(self.count()).header("cache-control", "no-store")
    }

    fn joined(&mut self, change: Change) {
        self.seen += 1;
        self.tell(&change);
    }

    fn left(&mut self, change: Change) {
        self.tell(&change);
    }
}
