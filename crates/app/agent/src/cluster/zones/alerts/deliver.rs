//! Tells somebody: posts a notice, or gives it to a program.
//!
//! Holds: whatever the other side does, it is over in its time and its memory;
//! what it says of itself is told, shortened; a webhook's redirections are not
//! followed; errors do not repeat a URL, whose path may be a secret.

use super::kept::Target;
use kernel::error_chain;
use rustls::ClientConfig;
use rustls::crypto::ring;
use rustls_platform_verifier::BuilderVerifierExt;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use wire::api::AlertNotice;

const WITHIN: Duration = Duration::from_secs(15);
/// Of what the other side says.
const SAID_BYTES_MAX: usize = 300;

pub async fn deliver(target: &Target, notice: &AlertNotice) -> Result<(), String> {
    let body = serde_json::to_vec(notice).map_err(|error| error.to_string())?;
    let work = async {
        match target {
            Target::Webhook(url) => post(url, body).await,
            Target::Command(words) => run(words, notice, &body).await,
        }
    };
    let late = |_| format!("it took more than {} s", WITHIN.as_secs());
    tokio::time::timeout(WITHIN, work).await.map_err(late)?
}

async fn post(url: &str, body: Vec<u8>) -> Result<(), String> {
    let client = client()?;
    let request = client
        .post(url)
        .header("content-type", "application/json")
        .body(body);
    let sent = request.send().await;
    let mut answer = sent.map_err(|error| error_chain(&error.without_url()))?;
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let mut said = Vec::new();
    while said.len() < SAID_BYTES_MAX {
        let Ok(Some(chunk)) = answer.chunk().await else {
            break;
        };
        said.extend_from_slice(&chunk);
    }
    Err(format!("it answered {status}{}", quoted(&said)))
}

fn client() -> Result<reqwest::Client, String> {
    let provider = Arc::new(ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(BuilderVerifierExt::with_platform_verifier)
        .map_err(|error| error.to_string())?
        .with_no_client_auth();
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent("homeostat")
        .build();
    client.map_err(|error| error_chain(&error))
}

/// It is killed with its time.
async fn run(words: &[String], notice: &AlertNotice, body: &[u8]) -> Result<(), String> {
    let (program, arguments) = words.split_first().ok_or("the command is empty")?;
    let mut child = Command::new(program)
        .args(arguments)
        .env("HOMEOSTAT_ALERT", &notice.alert)
        .env("HOMEOSTAT_ALERT_STATE", &notice.state)
        .env("HOMEOSTAT_ALERT_TEXT", &notice.text)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{program}: {error}"))?;
    let (mut stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let give = async {
        if let Some(stdin) = &mut stdin {
            // A program that does not read what it is told is none the worse.
            let _ = stdin.write_all(body).await;
        }
        drop(stdin.take());
    };
    let ((), said, status) = tokio::join!(give, said(stderr), child.wait());
    let status = status.map_err(|error| error.to_string())?;
    if status.success() {
        return Ok(());
    }
    Err(format!("{program} ended with {status}{}", quoted(&said)))
}

/// The beginning; the rest is read and let go, or the program would wait.
async fn said(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut all = Vec::new();
    let Some(stream) = stream else {
        return all;
    };
    let mut rest = stream;
    let mut begin = (&mut rest).take(SAID_BYTES_MAX as u64);
    let _ = begin.read_to_end(&mut all).await;
    let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
    all
}

fn quoted(said: &[u8]) -> String {
    let said = &said[..said.len().min(SAID_BYTES_MAX)];
    let said = String::from_utf8_lossy(said);
    let shown: String = said
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    match shown.trim() {
        "" => String::new(),
        shown => format!(": {shown}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncBufReadExt, BufReader};
    use tokio::net::TcpListener;

    fn notice() -> AlertNotice {
        AlertNotice {
            alert: "hot".to_owned(),
            state: "firing".to_owned(),
            text: "hot at /: firing".to_owned(),
            ..AlertNotice::default()
        }
    }

    fn command(script: &str) -> Target {
        Target::Command(["/bin/sh", "-c", script].map(str::to_owned).into())
    }

    /// Answers one request with this; gives what it was posted.
    async fn served(answer: &'static str) -> (Result<(), String>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a request");
            let mut stream = BufReader::new(stream);
            let (mut length, mut line) = (0, String::new());
            while line != "\r\n" {
                line.clear();
                stream.read_line(&mut line).await.expect("a head");
                if let Some(said) = line.to_lowercase().strip_prefix("content-length:") {
                    length = said.trim().parse().expect("a length");
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.expect("a body");
            let _ = stream.write_all(answer.as_bytes()).await;
            String::from_utf8(body).expect("text")
        });
        let target = Target::Webhook(format!("http://{address}/secret"));
        let outcome = deliver(&target, &notice()).await;
        (outcome, server.await.expect("ends"))
    }

    #[tokio::test]
    async fn a_webhook_is_posted_the_notice() {
        let (outcome, body) = served("HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!(outcome, Ok(()));
        let posted: AlertNotice = serde_json::from_str(&body).expect("a notice");
        assert_eq!(posted, notice());
    }

    #[tokio::test]
    async fn what_a_webhook_says_is_told_and_redirections_are_not_followed() {
        let refuses = "HTTP/1.1 403 Forbidden\r\ncontent-length: 7\r\n\r\nno\x1bway!";
        let (outcome, _) = served(refuses).await;
        assert_eq!(
            outcome,
            Err("it answered 403 Forbidden: no way!".to_owned())
        );
        let moved = "HTTP/1.1 307 Temporary Redirect\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n";
        let (outcome, _) = served(moved).await;
        assert!(outcome.is_err_and(|why| why.contains("307")));
        let (outcome, _) = served("what is this").await;
        assert!(outcome.is_err_and(|why| !why.contains("secret")));
    }

    #[tokio::test]
    async fn nobody_behind_a_webhook_is_told_without_its_path() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        drop(listener);
        let target = Target::Webhook(format!("http://{address}/secret"));
        let why = deliver(&target, &notice())
            .await
            .expect_err("nobody is there");
        assert!(why.contains("refused") && !why.contains("secret"), "{why}");
    }

    #[tokio::test]
    async fn a_command_reads_the_notice() {
        let checks = "read -r body; case $body in *'\"alert\":\"hot\"'*) ;; *) exit 3;; esac; \
             test \"$HOMEOSTAT_ALERT $HOMEOSTAT_ALERT_STATE\" = 'hot firing'";
        // Without a line's end `read` fails after it has read.
        assert_eq!(deliver(&command(checks), &notice()).await, Ok(()));
        assert_eq!(deliver(&command("exec 0<&-"), &notice()).await, Ok(()));
    }

    #[tokio::test]
    async fn a_command_that_fails_says_why_however_much_it_says() {
        let told = deliver(&command("echo no pager >&2; exit 7"), &notice()).await;
        let why = "/bin/sh ended with exit status: 7: no pager";
        assert_eq!(told, Err(why.to_owned()));
        let loud = command("head -c 1000000 /dev/zero >&2; exit 1");
        let why = deliver(&loud, &notice()).await.expect_err("fails");
        assert!(why.len() < 500, "{}", why.len());
        let absent = Target::Command(vec!["/no/such".to_owned()]);
        let why = deliver(&absent, &notice()).await.expect_err("fails");
        assert!(why.starts_with("/no/such: No such file"), "{why}");
    }
}
