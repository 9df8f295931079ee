//! What the origin of a handshake costs: parsed, and held against a short allowlist and the longest one.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a benchmark is no interface, and may fail where it stands"
)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use hubbub_api::{AllowedOrigins, Origin};

/// The longest list that a room may have.
const LONGEST: usize = 64;

fn origins(criterion: &mut Criterion) {
    let asked = "https://chat.example.com";
    criterion.bench_function("origin/parse", |bencher| {
        bencher.iter(|| Origin::parse(black_box(asked)).unwrap());
    });
    let other = |index| format!("https://page-{index}.example.org");
    let lists = [
        ("the only one", vec![asked.to_owned()]),
        ("by a wildcard", vec!["https://*.example.com".to_owned()]),
        ("last of 64", (1..LONGEST).map(other).chain([asked.to_owned()]).collect()),
    ];
    for (name, entries) in lists {
        let list = AllowedOrigins::compile(&entries).unwrap();
        criterion.bench_function(&format!("origin/admit, {name}"), |bencher| {
            bencher.iter(|| list.admit(black_box([asked.as_bytes()]), true).unwrap());
        });
    }
    let list = AllowedOrigins::compile(&(0..LONGEST).map(other).collect::<Vec<_>>()).unwrap();
    criterion.bench_function("origin/refuse, none of 64", |bencher| {
        bencher.iter(|| list.admit(black_box([asked.as_bytes()]), true).unwrap_err());
    });
}

criterion_group!(benches, origins);
criterion_main!(benches);
