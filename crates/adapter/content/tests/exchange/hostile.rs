//! Whatever bytes come, from clients and from holders.

use crate::support::{Manner, Place, fetch, noise};
use content::{FetchError, ServeError, ServeOptions, Server, Wanted};
use proptest::prelude::*;
use tokio::io::AsyncReadExt;
use wire::exchange::{HEADER_BYTES, Header, Kind, Refusal, Request, Want};

async fn answer(node: &Server, request: &[u8]) -> (Result<content::Served, ServeError>, Vec<u8>) {
    let mut sent = Vec::new();
    let served = node.serve(request, &mut sent).await;
    (served, sent)
}

fn server(place: &Place) -> Server {
    Server::new(place.content.clone(), ServeOptions::default())
}

fn refusal(sent: &[u8]) -> Refusal {
    let (head, body) = sent.split_first_chunk::<HEADER_BYTES>().expect("a header");
    assert_eq!(Header::decode(*head).expect("a frame").kind, Kind::Refusal);
    Refusal::decode(body).expect("a refusal")
}

#[tokio::test]
async fn requests_that_cannot_be_met_are_refused_by_name() {
    let place = Place::new();
    let hash = place.file(b"here");
    let node = server(&place);
    let pieces = |hash: kernel::Hash, first, count| Want::Pieces {
        hash: hash.0,
        first,
        count,
    };
    let cases = [
        (pieces(kernel::Hash([1; 32]), 0, 1), Refusal::Missing),
        (pieces(hash, 1, 1), Refusal::NoSuchPiece),
        (pieces(hash, u32::MAX, 2), Refusal::NoSuchPiece),
        (pieces(hash, 0, 0), Refusal::BadRequest),
        (Want::Describe { hash: [1; 32] }, Refusal::Missing),
    ];
    for (want, expected) in cases {
        let request = Request { wants: vec![want] };
        let (served, sent) = answer(&node, &request.frame().expect("encodes")).await;
        assert_eq!(served.expect("answered").refusals, 1);
        assert_eq!(refusal(&sent), expected, "{want:?}");
    }
    let (served, sent) = answer(&node, &[9; 100]).await;
    assert!(matches!(served, Err(ServeError::Request(_))));
    assert_eq!(refusal(&sent), Refusal::Version { spoken: 1 });
    let piece = Header {
        kind: Kind::Piece,
        length: 1,
    };
    let (served, sent) = answer(&node, &piece.encode()).await;
    assert!(matches!(served, Err(ServeError::NoRequest)));
    assert_eq!(refusal(&sent), Refusal::BadRequest);
}

#[tokio::test]
async fn a_client_that_says_nothing_is_let_go() {
    let place = Place::new();
    let options = ServeOptions {
        request_within: std::time::Duration::from_millis(20),
        ..ServeOptions::default()
    };
    let node = Server::new(place.content.clone(), options);
    let (client, served) = tokio::io::duplex(64);
    let (reader, writer) = tokio::io::split(served);
    let served = node.serve(reader, writer).await;
    assert!(matches!(served, Err(ServeError::Slow { .. })));
    drop(client);
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_let_go() {
    let place = Place::new();
    let hash = place.file(&noise(4 << 20, 1));
    let options = ServeOptions {
        part_within: std::time::Duration::from_millis(20),
        ..ServeOptions::default()
    };
    let node = Server::new(place.content.clone(), options);
    let want = Want::Pieces {
        hash: hash.0,
        first: 0,
        count: 16,
    };
    let request = Request { wants: vec![want] }.frame().expect("encodes");
    let (mut client, served) = tokio::io::duplex(64);
    let served = node.serve(&request[..], served).await;
    assert!(matches!(served, Err(ServeError::Slow { .. })));
    assert!(place.content.leased().is_empty(), "its lease ended with it");
    let mut one = [0];
    client.read_exact(&mut one).await.expect("some was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_of_noise_costs_little_and_harms_nobody() {
    let (ours, theirs) = (Place::new(), Place::new());
    let bytes = noise(3 << 20, 2);
    let hash = theirs.file(&bytes);
    let noisy = theirs.holder("noisy", Manner::Noise);
    let client = ours.fetcher();
    let alone = fetch(&client, Wanted::new(hash), &[&noisy]).await;
    assert!(
        matches!(alone, Err(FetchError::Unreachable { .. })),
        "{alone:?}"
    );
    let good = theirs.holder_at("good", 20, Manner::Good);
    let both = fetch(&client, Wanted::new(hash), &[&noisy, &good]).await;
    both.expect("fetches");
    assert!(ours.content.read_verified(hash).expect("reads") == bytes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn hostile_requests_never_panic_and_always_end(
        bytes: Vec<u8>, wants in prop::collection::vec((any::<bool>(), any::<u32>(), any::<u32>()), 0..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("starts").block_on(async {
            let place = Place::new();
            let hash = place.file(b"here").0;
            let node = server(&place);
            let _ = answer(&node, &bytes).await;
            let length = u32::try_from(bytes.len()).expect("short");
            let header = Header { kind: Kind::Request, length };
            let _ = answer(&node, &[&header.encode()[..], &[1], &bytes].concat()).await;
            let want = |(known, first, count)| {
                let hash = if known { hash } else { [3; 32] };
                Want::Pieces { hash, first, count }
            };
            let request = Request { wants: wants.into_iter().map(want).collect() };
            let (served, _) = answer(&node, &request.frame().expect("encodes")).await;
            served.expect("answered");
        });
    }
}
