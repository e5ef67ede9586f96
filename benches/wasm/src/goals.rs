//! What each figure must reach: where it closes, and where it should end.

use bench_common::figure::{Better, Goal, Of};

pub const START: Goal = Goal::number("instance_start", "us", 500.0, 100.0);
pub const CALL: Goal = Goal::number("warm_call_over_handler", "us", 20.0, 5.0);
pub const CPU: Goal = Goal::ratio("request_cpu_vs_wasmtime", "us", Better::Less, 0.7, 0.5);
pub const RATE: Goal = Goal::ratio("requests_vs_wasmtime", "/s", Better::More, 1.4, 2.0);
pub const HOG: Goal = Goal::ratio("p99_beside_hog", "ms", Better::Less, 1.5, 1.2);
pub const IDLE: Goal = Goal {
    name: "idle_services_within_5ms",
    unit: "",
    of: Of::Number,
    better: Better::More,
    closes: 5_000.0,
    last: 20_000.0,
};
pub const SETS_ETCD: Goal = Goal::ratio("bucket_sets_vs_etcd", "/s", Better::More, 1.0, 1.0);
/// With `appendfsync always`: where the bucket's sets should end.
pub const SETS_REDIS: Goal = Goal::ratio("bucket_sets_vs_redis", "/s", Better::More, 0.0, 1.0);
