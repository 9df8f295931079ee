//! What a handshake pays to find its room among many, and what a policy costs that is read or changed.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a benchmark is no interface, and may fail where it stands"
)]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use hubbub_api::{AuthPolicy, Heartbeat, POLICY_SCHEMA, RoomLimits, RoomPolicy};
use hubbub_gateway::room::{Policy, Rooms};

fn declared(number: usize, generation: i64) -> RoomPolicy {
    RoomPolicy {
        schema: POLICY_SCHEMA,
        room: format!("bench/room-{number}").parse().unwrap(),
        generation,
        pool: "default".to_owned(),
        allowed_origins: vec!["https://chat.example.com".to_owned()],
        require_origin: true,
        auth: AuthPolicy::default(),
        limits: RoomLimits::default(),
        heartbeat: Heartbeat::default(),
    }
}

fn policies(criterion: &mut Criterion) {
    for count in [1, 10_000] {
        let rooms = Rooms::new(2);
        for number in 0..count {
            let _ = rooms.put(Policy::compile(declared(number, 1)).unwrap());
        }
        assert_eq!(rooms.len(), count);
        let wanted = format!("bench/room-{}", count / 2);
        criterion.bench_function(&format!("policy/look up among {count}"), |bencher| {
            bencher.iter(|| rooms.get(black_box(&wanted)).unwrap().policy());
        });
        criterion.bench_function(&format!("policy/refuse among {count}"), |bencher| {
            bencher.iter(|| rooms.get(black_box("bench/no-such-room")).is_none());
        });
        let mut generation = 1;
        criterion.bench_function(&format!("policy/change among {count}"), |bencher| {
            let changed = || {
                generation += 1;
                Policy::compile(declared(count / 2, generation)).unwrap()
            };
            bencher.iter_batched(changed, |policy| rooms.put(policy), BatchSize::SmallInput);
        });
    }
    criterion.bench_function("policy/compile", |bencher| {
        bencher.iter_batched(
            || declared(1, 1),
            |declared| Policy::compile(declared).unwrap(),
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, policies);
criterion_main!(benches);
