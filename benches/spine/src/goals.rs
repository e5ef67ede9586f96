//! What each figure must reach: where it closes, and where it should end.

use crate::figure::{Better, Goal, Of};

const fn number(name: &'static str, unit: &'static str, closes: f64, last: f64) -> Goal {
    Goal {
        name,
        unit,
        of: Of::Number,
        better: Better::Less,
        closes,
        last,
    }
}

const fn ratio(
    name: &'static str,
    unit: &'static str,
    better: Better,
    closes: f64,
    last: f64,
) -> Goal {
    Goal {
        name,
        unit,
        of: Of::Ratio,
        better,
        closes,
        last,
    }
}

pub const UP: Goal = number("up_to_first_200", "s", 2.0, 1.0);
pub const RESTART: Goal = number("replica_exit_to_started_p99", "ms", 50.0, 20.0);
pub const CPU_NGINX: Goal = ratio("static_cpu_vs_nginx", "s/1e6", Better::Less, 2.0, 0.8);
pub const CPU_HTTPD: Goal = ratio("static_cpu_vs_httpd", "s/1e6", Better::Less, 1.0, 0.4);
pub const P99: Goal = ratio("static_p99_vs_nginx", "ms", Better::Less, 2.0, 1.0);
pub const WRITES_1: Goal = ratio("durable_writes_1_client", "/s", Better::More, 0.9, 0.9);
pub const WRITES_64: Goal = ratio("durable_writes_64_clients", "/s", Better::More, 1.0, 1.5);
pub const AGENT_PSS: Goal = number("agent_idle_pss", "MB", 40.0, 25.0);
pub const AGENT_BACK: Goal = number("agent_killed_to_back", "s", 3.0, 2.0);
pub const EDGE_BACK: Goal = number("edge_killed_to_serving", "ms", 500.0, 200.0);
