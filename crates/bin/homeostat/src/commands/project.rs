//! Projects' policies: set and listed.

use super::Context;
use crate::arguments::Projects;
use crate::failure::{Failure, USAGE};
use crate::output::{self, say};
use client::segment;
use kernel::Bytes;
use std::process::ExitCode;
use std::str::FromStr;
use wire::api::{Policy, ProjectView};

pub async fn run(context: &Context, what: &Projects) -> Result<ExitCode, Failure> {
    match what {
        Projects::Ls => {
            let all: Vec<ProjectView> = context.client.get("/v1/projects").await?;
            show(context, &all)?;
        }
        Projects::Set { name, .. } => {
            let all: Vec<ProjectView> = context.client.get("/v1/projects").await?;
            let policy = all.into_iter().find(|project| project.name == *name);
            let policy = changed(policy.map(|project| project.policy), what)?;
            let path = format!("/v1/projects/{}", segment(name));
            let set: ProjectView = context.client.post(&path, &policy).await?;
            for over in &set.over {
                say(&format!(
                    "warning: {over}; it runs on, and is refused when it is applied again"
                ));
            }
            show(context, &[set])?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn changed(before: Option<Policy>, what: &Projects) -> Result<Policy, Failure> {
    let mut policy = before.unwrap_or(Policy {
        trusted: true,
        services: None,
        replicas: None,
        memory_bytes: None,
        bucket_bytes: None,
    });
    if let Projects::Set {
        trusted,
        services,
        replicas,
        memory,
        bucket_bytes,
        ..
    } = what
    {
        policy.trusted = trusted.unwrap_or(policy.trusted);
        replace(&mut policy.services, services.as_deref(), u32::from_str)?;
        replace(&mut policy.replicas, replicas.as_deref(), u32::from_str)?;
        let bytes = |text: &str| Bytes::from_str(text).map(|bytes| bytes.0);
        replace(&mut policy.memory_bytes, memory.as_deref(), bytes)?;
        replace(&mut policy.bucket_bytes, bucket_bytes.as_deref(), bytes)?;
    }
    Ok(policy)
}

/// `none` takes a limit away; what is not given stays.
fn replace<T, E: std::fmt::Display>(
    limit: &mut Option<T>,
    given: Option<&str>,
    read: impl Fn(&str) -> Result<T, E>,
) -> Result<(), Failure> {
    match given {
        None => {}
        Some("none") => *limit = None,
        Some(text) => {
            let value = read(text).map_err(|error| {
                let help = "a number, a size such as `2 GiB`, or `none`";
                Failure::new(USAGE, format!("`{text}`: {error}"), Some(help))
            })?;
            *limit = Some(value);
        }
    }
    Ok(())
}

fn show(context: &Context, all: &[ProjectView]) -> Result<(), Failure> {
    let name = |project: &ProjectView| format!("project/{}", project.name);
    let head = [
        "NAME", "TRUSTED", "SERVICES", "REPLICAS", "MEMORY", "BUCKETS",
    ];
    output::list(all, context.output, name, (head, all.iter().map(row)))
}

fn row(project: &ProjectView) -> [String; 6] {
    let policy = &project.policy;
    let of = |count: u64, limit: Option<u32>| match limit {
        Some(limit) => format!("{count} of {limit}"),
        None => count.to_string(),
    };
    let size = |limit: Option<u64>| match limit {
        Some(limit) => format!("at most {}", Bytes(limit)),
        None => "-".to_owned(),
    };
    [
        project.name.clone(),
        if policy.trusted { "yes" } else { "no" }.to_owned(),
        of(project.services, policy.services),
        of(project.replicas, policy.replicas),
        size(policy.memory_bytes),
        size(policy.bucket_bytes),
    ]
}
