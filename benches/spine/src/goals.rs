//! What each figure must reach: where it closes, and where it should end.

use bench_common::figure::{Better, Goal};

pub const UP: Goal = Goal::number("up_to_first_200", "s", 2.0, 1.0);
pub const RESTART: Goal = Goal::number("replica_exit_to_started_p99", "ms", 50.0, 20.0);
pub const CPU_NGINX: Goal = Goal::ratio("static_cpu_vs_nginx", "s/1e6", Better::Less, 2.0, 0.8);
pub const CPU_HTTPD: Goal = Goal::ratio("static_cpu_vs_httpd", "s/1e6", Better::Less, 1.0, 0.4);
pub const P99: Goal = Goal::ratio("static_p99_vs_nginx", "ms", Better::Less, 2.0, 1.0);
pub const WRITES_1: Goal = Goal::ratio("durable_writes_1_client", "/s", Better::More, 0.9, 0.9);
pub const WRITES_64: Goal = Goal::ratio("durable_writes_64_clients", "/s", Better::More, 1.0, 1.5);
pub const AGENT_PSS: Goal = Goal::number("agent_idle_pss", "MB", 40.0, 25.0);
pub const AGENT_BACK: Goal = Goal::number("agent_killed_to_back", "s", 3.0, 2.0);
pub const EDGE_BACK: Goal = Goal::number("edge_killed_to_serving", "ms", 500.0, 200.0);
