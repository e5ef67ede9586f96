//! `news-search`: finds the news site's pages by their words, over HTTP.
//!
//! In: `HOST`, `PORT`, `NEWS_SITE`, `VERSION` and `FAIL_START` from the
//! environment. Out: `/search` and `/healthz`. Holds: it listens before the
//! index is built and is healthy after; SIGTERM ends it with code 0 once the
//! requests in hand are answered.

mod answer;
mod index;
mod server;
mod site;
mod text;

use http::HeaderValue;
use server::Service;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

const VERSION_DEFAULT: &str = "unversioned";

fn main() -> ExitCode {
    // Half a core is this service's share: one thread answers, one reads pages.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(run()),
        Err(error) => Err(format!("cannot start: {error}")),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), String> {
    let settings = Settings::read(|name| std::env::var(name).ok())?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let listener = TcpListener::bind(settings.address)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", settings.address))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let service = Arc::new(Service {
        version: settings.version,
        index: OnceLock::new(),
    });
    say(&format!("listening on {address}"));
    let begun = Instant::now();
    let reader = tokio::task::spawn_blocking(move || site::read(&settings.site));
    let built = async {
        let read = match reader.await {
            Ok(Ok(read)) => read,
            Ok(Err(error)) => return error.to_string(),
            Err(error) => return format!("the index was not built: {error}"),
        };
        say(&format!(
            "ready: {} words of {} pages in {} ms, {} pages left out",
            read.index.words(),
            read.index.documents(),
            begun.elapsed().as_millis(),
            read.left_out
        ));
        let _ = service.index.set(read.index);
        // From here on only a signal ends the service.
        std::future::pending().await
    };
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        say("stopping");
    };
    tokio::select! {
        cut = server::serve(listener, Arc::clone(&service), stop) => {
            say(&format!("stopped, {cut} connections cut"));
            Ok(())
        }
        failure = built => Err(failure),
    }
}

struct Settings {
    address: SocketAddr,
    site: PathBuf,
    version: HeaderValue,
}

impl Settings {
    fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        if variable("FAIL_START").is_some_and(|value| value == "1") {
            return Err("told not to start by FAIL_START=1".to_owned());
        }
        let host = match variable("HOST") {
            Some(text) => text
                .parse()
                .map_err(|_| format!("HOST is `{text}`, which is no IP address"))?,
            None => IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        let port = match variable("PORT") {
            Some(text) => text
                .parse()
                .map_err(|_| format!("PORT is `{text}`, which is no port"))?,
            None => 0,
        };
        let site = variable("NEWS_SITE")
            .filter(|text| !text.is_empty())
            .ok_or("NEWS_SITE is not set; it names the directory of the site's pages")?;
        let version = variable("VERSION").unwrap_or_else(|| VERSION_DEFAULT.to_owned());
        Ok(Self {
            address: SocketAddr::new(host, port),
            site: PathBuf::from(site),
            version: HeaderValue::from_str(&version)
                .map_err(|_| format!("VERSION is `{version:?}`, which no header can carry"))?,
        })
    }
}

/// A line for the log; a log that is gone must not end the service.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(given: &[(&str, &str)]) -> Result<Settings, String> {
        Settings::read(|name| {
            let found = given.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn settings_name_what_is_wrong() {
        let wrong = |given: &[(&str, &str)]| read(given).err().expect("refused");
        assert!(wrong(&[]).contains("NEWS_SITE"));
        assert!(wrong(&[("NEWS_SITE", "")]).contains("NEWS_SITE"));
        assert!(wrong(&[("NEWS_SITE", "/"), ("PORT", "70000")]).contains("`70000`"));
        assert!(wrong(&[("NEWS_SITE", "/"), ("HOST", "here")]).contains("`here`"));
        assert!(wrong(&[("NEWS_SITE", "/"), ("VERSION", "a\nb")]).contains("VERSION"));
        assert!(wrong(&[("NEWS_SITE", "/"), ("FAIL_START", "1")]).contains("FAIL_START"));
        let good = read(&[("NEWS_SITE", "/"), ("HOST", "::1"), ("PORT", "80")]).expect("fine");
        assert_eq!(good.address.to_string(), "[::1]:80");
    }
}
