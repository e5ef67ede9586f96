//! An actor for tests, well-behaved or not as a request's path says.
//!
//! `/count`, `/echo` (the body), `/environment?NAME`, `/print?TEXT`,
//! `/keep?TEXT` (adds to what it has, says all), `/log?TEXT`, `/random`,
//! `/files?PATH`, `/headers?NAME`, `/loop`, `/grow`, `/trap`, `/recurse`, `/exit`.
//! `/bucket/get?KEY`, `set`, `delete`, `add` (one), `swap` (compare and set) do
//! this to the bucket `kept`, with the body as the value; `/other` opens another.

use actor_sdk::{Actor, Bucket, Level, Request, Response, log, random};
use std::collections::HashMap;

actor_sdk::export!(Probe);

#[derive(Default)]
struct Probe {
    asked: u64,
    kept: Vec<String>,
    by_path: HashMap<String, u64>,
}

impl Actor for Probe {
    fn handle(&mut self, request: Request) -> Response {
        self.asked += 1;
        *self.by_path.entry(request.path().to_owned()).or_default() += 1;
        let query = request.query();
        match request.path() {
            "/count" => Response::text(format!("{} {}", self.asked, self.by_path["/count"])),
            "/echo" => Response::new(201)
                .header("x-method", request.method.clone())
                .body(request.body),
            "/headers" => Response::new(200).body(request.header(query).unwrap_or_default()),
            "/environment" => Response::text(std::env::var(query).unwrap_or_default()),
            "/print" => {
                println!("{query}");
                eprintln!("{query}");
                Response::text("printed")
            }
            "/log" => {
                log(Level::Warning, query);
                Response::text("logged")
            }
            "/random" => {
                let mut bytes = [0; 32];
                random(&mut bytes);
                Response::new(200).body(bytes)
            }
            "/keep" => {
                self.kept.push(query.to_owned());
                Response::text(self.kept.join(","))
            }
            "/files" => match std::fs::read_dir(query).map(Iterator::count) {
                Ok(count) => Response::text(format!("{count} files")),
                Err(error) => Response::text(format!("refused: {error}")),
            },
            path if path.starts_with("/bucket/") => {
                Response::text(bucket(path, query, &request.body))
            }
            "/other" => Response::text(said(&Bucket::named("other").get("key"))),
            "/loop" => spin(),
            "/grow" => grow(),
            "/recurse" => Response::text(recurse(1).to_string()),
            "/trap" => panic!("told to"),
            "/exit" => std::process::exit(3),
            _ => Response::new(404),
        }
    }
}

fn bucket(path: &str, key: &str, value: &[u8]) -> String {
    let kept = Bucket::named("kept");
    match path {
        "/bucket/get" => {
            let got = kept.get(key);
            said(&got.map(|found| found.map(|found| String::from_utf8_lossy(&found.bytes).len())))
        }
        "/bucket/set" => said(&kept.set(key, value)),
        "/bucket/delete" => said(&kept.delete(key)),
        "/bucket/add" => said(&kept.increment(key, 1)),
        "/bucket/swap" => {
            let before = kept.get(key).ok().flatten().map(|found| found.revision);
            let stale = kept.compare_and_set(key, Some(1_000_000), value);
            said(&(stale, kept.compare_and_set(key, before, value)))
        }
        _ => "no such thing".to_owned(),
    }
}

fn said(what: &impl std::fmt::Debug) -> String {
    format!("{what:?}")
}

fn spin() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = std::hint::black_box(turns.wrapping_add(1));
    }
}

fn grow() -> ! {
    let mut kept = Vec::new();
    loop {
        kept.push(std::hint::black_box(vec![1_u8; 1 << 20]));
    }
}

#[expect(unconditional_recursion, reason = "that is what it is for")]
fn recurse(depth: u64) -> u64 {
    let here = std::hint::black_box([depth; 64]);
    recurse(here[0] + 1) + std::hint::black_box(here)[1]
}
