//! The data plane over real sockets. One program, so that it is linked once.

mod components;
mod drains;
mod forwarding;
mod forwarding_faults;
mod hostile;
mod http2;
mod links;
mod service_faults;
mod services;
mod sites;
mod streaming;
mod support;
mod tls;
mod tunnels;
mod validators;
