//! Checks, each with its mend; and trusting the local authority.

use super::Context;
use super::up::{denied, supervisor_status};
use crate::arguments::Format;
use crate::failure::{AS_OWNER, DENIED, FAILED, Failure, NOT_FOUND};
use crate::output::{self, data, say};
use agent::audit::Verdict;
use serde::Serialize;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitCode};
use wire::api::{AdminPort, AlertView, ContentStatus, NodeView, Object, Status, ZonesReply};
use wire::edge::EdgeSnapshot;

const SUPERVISOR: &str = "supervisor";

#[derive(Serialize)]
struct Finding {
    check: &'static str,
    /// `ok`, `note` or `bad`.
    verdict: &'static str,
    found: String,
    mend: Option<String>,
}

pub async fn run(context: &Context) -> Result<ExitCode, Failure> {
    let mut findings = Vec::new();
    if context.client.is_local() {
        findings = vec![data_directory(context), disk(context), control_groups()];
        findings.extend(discovery(context));
        findings.extend(processes(context).await);
    }
    // Who may not speak to it, or finds none, has been told so.
    if findings.last().is_none_or(|last| last.check != SUPERVISOR) {
        findings.extend(node(context).await);
    }
    let bad = findings.iter().any(|finding| finding.verdict == "bad");
    match context.output {
        Format::Table => findings.iter().try_for_each(show)?,
        Format::Json => output::json(&findings, context.output)?,
        Format::Jsonl => findings
            .iter()
            .try_for_each(|finding| output::json(finding, context.output))?,
        Format::Name => findings
            .iter()
            .try_for_each(|finding| data(finding.check))?,
    }
    Ok(ExitCode::from(if bad { FAILED } else { 0 }))
}

fn show(finding: &Finding) -> Result<(), Failure> {
    data(&format!(
        "{:4}  {:15} {}",
        finding.verdict, finding.check, finding.found
    ))?;
    match &finding.mend {
        Some(mend) => data(&format!("      {:15} mend: {mend}", "")),
        None => Ok(()),
    }
}
fn finding(check: &'static str, bad: bool, found: String, mend: &str) -> Finding {
    Finding {
        check,
        verdict: if bad { "bad" } else { "ok" },
        found,
        mend: bad.then(|| mend.to_owned()),
    }
}

fn data_directory(context: &Context) -> Finding {
    let root = &context.layout.root;
    let version = std::fs::read_to_string(context.layout.version());
    match version {
        Ok(version) if version.trim() == wire::layout::DATA_VERSION => {
            finding("data directory", false, root.display().to_string(), "")
        }
        Ok(version) => finding(
            "data directory",
            true,
            format!("{} is of version {}", root.display(), version.trim()),
            "use the program of that version, or another --data-dir",
        ),
        Err(_) => Finding {
            check: "data directory",
            verdict: "note",
            found: format!("{} holds no node yet", root.display()),
            mend: Some("homeostat up".to_owned()),
        },
    }
}

fn disk(context: &Context) -> Finding {
    let mut path: &Path = &context.layout.root;
    while !path.exists() {
        path = path.parent().unwrap_or(Path::new("/"));
    }
    match rustix::fs::statvfs(path) {
        Ok(disk) => {
            let free = kernel::Bytes(disk.f_bavail.saturating_mul(disk.f_frsize));
            let low = free < kernel::Bytes::mebibytes(512);
            finding("disk", low, format!("{free} free"), "free at least 512 MiB")
        }
        Err(error) => finding("disk", true, error.to_string(), "check the disk"),
    }
}

fn control_groups() -> Finding {
    let groups = drivers::control_groups();
    let enforced = ["memory", "cpu", "pids"]
        .iter()
        .all(|controller| groups.limits(controller));
    Finding {
        check: "control groups",
        verdict: if enforced { "ok" } else { "note" },
        found: groups.to_string(),
        mend: (!enforced).then(|| {
            "run the node as root, or with a delegated control group, to enforce limits".to_owned()
        }),
    }
}

/// Where services of this node ask for names.
fn discovery(context: &Context) -> Option<Finding> {
    const SHOWN_MAX: usize = 8;
    let saved = std::fs::read(context.layout.edge_snapshot()).ok()?;
    let callers = serde_json::from_slice::<EdgeSnapshot>(&saved).ok()?.callers;
    let resolvers = callers.iter().take(SHOWN_MAX);
    let mut shown: Vec<String> = resolvers
        .map(|(caller, view)| format!("{caller} asks {}", view.resolver))
        .collect();
    if callers.len() > SHOWN_MAX {
        shown.push(format!("and {} more", callers.len() - SHOWN_MAX));
    }
    (!shown.is_empty()).then(|| finding("discovery", false, shown.join(", "), ""))
}

/// Ends with the supervisor's finding when there is nobody to ask further.
async fn processes(context: &Context) -> Vec<Finding> {
    if let Some(denied) = denied(context) {
        let mend = denied.help.unwrap_or_default();
        return vec![finding(SUPERVISOR, true, denied.message, &mend)];
    }
    let Some(supervisor) = supervisor_status(context).await else {
        return vec![Finding {
            check: SUPERVISOR,
            verdict: "note",
            found: "not running".to_owned(),
            mend: Some("homeostat up".to_owned()),
        }];
    };
    let mut findings = vec![finding(
        SUPERVISOR,
        false,
        format!("pid {}", supervisor.pid),
        "",
    )];
    for (check, child) in [("agent", &supervisor.agent), ("edge", &supervisor.edge)] {
        findings.push(match child {
            Some(child) => finding(
                check,
                false,
                format!("pid {}, {} restarts", child.pid, child.restarts),
                "",
            ),
            None => finding(
                check,
                true,
                "not running".to_owned(),
                "see its log in the data directory",
            ),
        });
    }
    findings
}

async fn node(context: &Context) -> Vec<Finding> {
    let mut findings = Vec::new();
    match context.client.get::<Status>("/v1/status").await {
        Ok(status) => {
            findings.push(finding(
                "store",
                status.store_fault.is_some(),
                status.store_fault.unwrap_or_else(|| "answers".to_owned()),
                "free or replace the disk, then: homeostat down && homeostat up",
            ));
            findings.extend(status.secrets_fault.map(|fault| Finding {
                check: "secrets",
                verdict: "bad",
                found: fault.found,
                mend: fault.mend,
            }));
            findings.extend(status.content.into_iter().flat_map(content));
            findings.extend(status.admin_port.as_ref().map(admin_port));
            findings.extend(
                status
                    .certificate_warnings
                    .into_iter()
                    .map(|warning| Finding {
                        check: "certificate",
                        verdict: "note",
                        found: warning,
                        mend: Some(
                            "renew it, then: homeostat up --certificate FILE --key FILE".to_owned(),
                        ),
                    }),
            );
        }
        Err(error) => findings.push(finding(
            "admin API",
            true,
            kernel::error_chain(&error),
            if context.client.is_local() {
                "see logs/agent.log in the data directory"
            } else {
                "on the node itself: homeostat doctor"
            },
        )),
    }
    // Only an admin of the node may look through it.
    if let Ok(verdict) = context.client.get("/v1/audit/verify").await {
        findings.push(audit_log(verdict));
    }
    if let Ok(nodes) = context.client.get::<Vec<NodeView>>("/v1/nodes").await {
        findings.extend(nodes.iter().filter(|node| node.cloned).map(cloned));
    }
    if let Ok(tree) = context.client.get::<ZonesReply>("/v1/zones").await {
        findings.extend(tree.liars.iter().map(lied));
    }
    if let Ok(alerts) = context.client.get::<Vec<AlertView>>("/v1/alerts").await {
        findings.extend(alerts.iter().filter_map(alert));
    }
    if let Ok(services) = context.client.get("/v1/objects/service").await {
        findings.extend(short_of_replicas(services));
    }
    findings
}

fn content(status: ContentStatus) -> Vec<Finding> {
    let one = |verdict, found, mend| Finding {
        check: "content",
        verdict,
        found,
        mend,
    };
    let faults = status.faults.into_iter();
    let mut findings: Vec<Finding> = faults
        .map(|fault| one("bad", fault.found, fault.mend))
        .collect();
    if findings.is_empty() {
        findings.push(one("ok", status.summary, None));
    }
    let see = || Some("see: homeostat why node/NAME".to_owned());
    findings.extend(
        status
            .notes
            .into_iter()
            .map(|note| one("note", note, see())),
    );
    findings
}

/// Which of the two is the copy, only a person knows.
fn cloned(node: &NodeView) -> Finding {
    let found = format!(
        "two processes have the key of {}: its disk was copied",
        node.name
    );
    let mend = format!(
        "end the copy; whoever else may have it: homeostat node revoke {}, then join anew",
        node.name
    );
    finding("nodes", true, found, &mend)
}

fn lied((node, zone): (&String, &String)) -> Finding {
    let found = format!("{node} said of {zone} what its nodes' rows do not give");
    let mend = format!("look at that machine; then: homeostat node revoke {node}");
    finding("nodes", true, found, &mend)
}

fn alert(alert: &AlertView) -> Option<Finding> {
    let name = &alert.name;
    if let Some(why) = &alert.failed {
        let found = format!("{name} told nobody yet: {why}");
        let mend = format!("mend {}, then: homeostat alerts test {name}", alert.tells);
        return Some(finding("alerts", true, found, &mend));
    }
    (alert.state == "firing").then(|| Finding {
        check: "alerts",
        verdict: "note",
        found: format!("{name} is firing: {}", alert.question),
        mend: Some(format!("see: homeostat why alert/{name}")),
    })
}

fn admin_port(port: &AdminPort) -> Finding {
    let found = match &port.fault {
        None => format!("https://{}", port.address),
        Some(fault) => format!("nothing listens on {}: {fault}", port.address),
    };
    let mend = "free that address, which is tried again; or: homeostat down && homeostat up --admin-listen ADDR";
    finding("admin port", port.fault.is_some(), found, mend)
}

fn audit_log(verdict: Verdict) -> Finding {
    let is_bad = verdict.fault.is_some();
    let found = match verdict.fault {
        Some(fault) => fault,
        None => format!("{} lines, whole", verdict.lines),
    };
    let mend = "homeostat audit verify; compare with a copy: homeostat audit verify --file COPY";
    finding("audit log", is_bad, found, mend)
}

fn short_of_replicas(services: Vec<Object>) -> impl Iterator<Item = Finding> {
    let short = services
        .into_iter()
        .filter(|service| service.state != "ready");
    short.map(|service| Finding {
        check: "service",
        verdict: if service.state == "down" {
            "bad"
        } else {
            "note"
        },
        found: format!(
            "{} is {}: {}",
            service.reference, service.state, service.summary
        ),
        mend: Some(format!("see: homeostat why {}", service.reference)),
    })
}

pub async fn trust(context: &Context, to: Option<&Path>) -> Result<ExitCode, Failure> {
    let pem = std::fs::read(context.layout.authority()).map_err(|error| {
        if error.kind() == std::io::ErrorKind::PermissionDenied {
            let cause = format!(
                "cannot read {}: {error}",
                context.layout.authority().display()
            );
            return Failure::new(DENIED, cause, Some(AS_OWNER));
        }
        let root = context.layout.root.display();
        Failure::new(
            NOT_FOUND,
            format!("there is no authority in {root} yet: {error}"),
            Some("homeostat up"),
        )
    })?;
    if let Some(to) = to {
        std::fs::write(to, &pem).map_err(|error| {
            Failure::new(
                FAILED,
                format!("cannot write {}: {error}", to.display()),
                None,
            )
        })?;
        let status = context.client.get::<Status>("/v1/status").await.ok();
        let https = status.and_then(|status| status.https?.parse::<SocketAddr>().ok());
        let port = https.map_or(8443, |https| https.port());
        say(&format!(
            "written; try: curl --cacert {} https://localhost:{port}/",
            to.display()
        ));
        return Ok(ExitCode::SUCCESS);
    }
    let system = Path::new("/usr/local/share/ca-certificates/homeostat-local.crt");
    std::fs::write(system, &pem).map_err(|error| {
        Failure::new(
            DENIED,
            format!("cannot write {}: {error}", system.display()),
            // Root's own data directory is another one.
            Some(&format!(
                "as root: homeostat --data-dir {} trust; or: homeostat trust --to authority.pem",
                context.layout.root.display()
            )),
        )
    })?;
    let updated = Command::new("update-ca-certificates")
        .output()
        .map_err(|error| {
            Failure::new(
                FAILED,
                format!("update-ca-certificates: {error}"),
                Some("apt install ca-certificates"),
            )
        })?;
    if !updated.status.success() {
        return Err(Failure::new(
            FAILED,
            String::from_utf8_lossy(&updated.stderr).into_owned(),
            None,
        ));
    }
    say("this machine trusts the node's authority");
    Ok(ExitCode::SUCCESS)
}
