//! Asks a replica whether it is well: a TCP connection or one HTTP GET.
//!
//! Holds: an answer within the time-out; at most [`STATUS_BYTES_MAX`] read.

use manifest::Check;
use node::driver::ProbeOutcome;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Enough for any status line.
const STATUS_BYTES_MAX: usize = 1024;

pub async fn probe(address: SocketAddr, check: &Check, timeout: Duration) -> ProbeOutcome {
    let begun = Instant::now();
    let (healthy, detail) = match tokio::time::timeout(timeout, ask(address, check)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => (false, describe(&error)),
        Err(_) => {
            let limit = kernel::format_duration(timeout);
            (false, format!("no answer within {limit}"))
        }
    };
    ProbeOutcome {
        healthy,
        detail,
        took: begun.elapsed(),
    }
}

async fn ask(address: SocketAddr, check: &Check) -> std::io::Result<(bool, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let Check::Http(path) = check else {
        return Ok((true, "connected".to_owned()));
    };
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nuser-agent: homeostat-probe\r\n\
         accept: */*\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = [0_u8; STATUS_BYTES_MAX];
    let mut length = 0;
    while length < answer.len() && !answer[..length].contains(&b'\n') {
        match stream.read(&mut answer[length..]).await? {
            0 => break,
            read => length += read,
        }
    }
    Ok(judge(&answer[..length]))
}

fn judge(answer: &[u8]) -> (bool, String) {
    let text = String::from_utf8_lossy(answer);
    let line = text.lines().next().unwrap_or_default();
    let status = line
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split_once(' '))
        .map(|(_, status)| status.trim());
    let code = status.and_then(|status| status.get(..3)?.parse::<u16>().ok());
    match (status, code) {
        (Some(status), Some(code)) => ((200..400).contains(&code), status.to_owned()),
        _ => (false, "the answer is not HTTP".to_owned()),
    }
}

fn describe(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        std::io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_is_200_to_399() {
        assert_eq!(judge(b"HTTP/1.1 200 OK\r\n"), (true, "200 OK".to_owned()));
        assert_eq!(
            judge(b"HTTP/1.0 302 Found\r\n"),
            (true, "302 Found".to_owned())
        );
        assert!(!judge(b"HTTP/1.1 503 Service Unavailable\r\n").0);
        assert!(!judge(b"SSH-2.0-x\r\n").0);
        assert!(!judge(b"HTTP/1.1 2\xff0 OK").0);
        assert!(!judge(b"").0);
    }
}
