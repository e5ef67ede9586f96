//! The files that all servers serve, and whether a server serves them rightly.
//!
//! Holds: a seed makes the files; bytes that no encoding makes smaller, so that
//! each server sends the same ones.

use bench_common::Failure;
use bench_common::ask::Ask;
use bench_common::http::Connection;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub const FILES: usize = 100;

pub struct Site {
    pub directory: PathBuf,
    pub bodies: Vec<Vec<u8>>,
}

pub fn path(index: usize) -> String {
    format!("/f{index:03}.jpg")
}

impl Site {
    /// A hundred files from 1 to 16 KiB and a front page.
    pub fn make(directory: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(directory)?;
        let bodies: Vec<Vec<u8>> = (0..FILES).map(body).collect();
        for (index, body) in bodies.iter().enumerate() {
            fs::write(directory.join(&path(index)[1..]), body)?;
        }
        fs::write(
            directory.join("index.html"),
            "<!doctype html><p>spine</p>\n",
        )?;
        Ok(Self {
            directory: directory.to_owned(),
            bodies,
        })
    }

    /// Asks for each file once and compares all of it.
    pub fn verify(&self, address: SocketAddr) -> Result<(), Failure> {
        let mut connection = Connection::open(address)?;
        for (index, body) in self.bodies.iter().enumerate() {
            let answer = connection.get(&path(index))?;
            if answer.status != 200 || answer.body != *body {
                return Err(format!(
                    "{address}{} answered {} with {} bytes, not 200 with {}",
                    path(index),
                    answer.status,
                    answer.body.len(),
                    body.len()
                )
                .into());
            }
        }
        Ok(())
    }

    /// Each file once.
    pub fn asks(&self) -> Vec<Ask> {
        let sized = self.bodies.iter().enumerate();
        sized
            .map(|(index, body)| Ask::new(&path(index), body.len()))
            .collect()
    }
}

/// Sizes go evenly from 1 to 16 KiB; the bytes are xorshift64.
fn body(index: usize) -> Vec<u8> {
    let length = 1024 + index * (15 * 1024) / (FILES - 1);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ (index as u64 + 1);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_from_one_to_sixteen_kibibytes_and_all_different() {
        let home = tempfile::tempdir().expect("a directory");
        let site = Site::make(home.path()).expect("a site");
        assert_eq!(site.bodies[0].len(), 1 << 10);
        assert_eq!(site.bodies[FILES - 1].len(), 16 << 10);
        for pair in site.bodies.windows(2) {
            assert_ne!(pair[0][..16], pair[1][..16]);
        }
        let written = fs::read(home.path().join("f099.jpg")).expect("a file");
        assert_eq!(written, site.bodies[FILES - 1]);
    }
}
