//! The pure stages one by one, on one thread: `cargo bench --bench stages`, or `make stages`.
//!
//! Times are for a chunk of 512 events, as the poll thread hands them on, or for an epoch of
//! 20,000. `make bench` measures what they come to together.

use std::hint::black_box;
use std::sync::LazyLock;

use contentflow::generate::{Generator, Mix};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use dataflows::accept::sort;
use dataflows::change::Change;
use dataflows::decode::Decoder;
use dataflows::dedupe::Memory;
use dataflows::latest::group;
use dataflows::ledger::Ledger;
use dataflows::outcome::Tally;
use dataflows::record::Chunk;
use dataflows::row::{RowMemory, judge};
use dataflows::validate::{self, DraftIdType};

const DRAFT_IDS: DraftIdType = DraftIdType::Text { max_chars: None };
const CHUNK: usize = 512;
const EPOCH: usize = 20_000;

/// An epoch of events, a tenth of them for a draft that has one already.
static CHUNKS: LazyLock<Vec<Chunk>> = LazyLock::new(|| {
    let events = u64::try_from(EPOCH).expect("a small number");
    let mix = Mix { events, drafts: events * 9 / 10, ..Mix::default() };
    let generated: Vec<_> = Generator::new(mix).expect("a mix that adds up").collect();
    let chunks = generated.chunks(CHUNK).zip(0..).map(|(events, number)| {
        let mut chunk = Chunk::default();
        for (event, offset) in events.iter().zip(i64::from(number) * 512..) {
            let headers = event.headers.iter();
            chunk.push(
                event.record_at(0, offset),
                headers.map(|(name, value)| (*name, Some(value.as_bytes()))),
            );
        }
        chunk
    });
    chunks.collect()
});

fn changes() -> Vec<Change> {
    CHUNKS.iter().flat_map(|chunk| sort(chunk.clone(), DRAFT_IDS).changes).collect()
}

fn stages(criterion: &mut Criterion) {
    let mut chunk = criterion.benchmark_group("a chunk of 512");
    chunk.throughput(Throughput::Elements(512));
    chunk.bench_function("take in", |bencher| {
        bencher.iter(|| {
            let mut chunk = CHUNKS[0].another();
            CHUNKS[0].records().for_each(|it| chunk.push(it.raw(), it.headers()));
            chunk
        });
    });
    chunk.bench_function("decode", |bencher| {
        bencher.iter(|| {
            let mut decoder = Decoder::new(DRAFT_IDS);
            CHUNKS[0].records().for_each(|it| drop(black_box(decoder.decode(it))));
        });
    });
    chunk.bench_function("validate ids", |bencher| {
        let ids: Vec<String> =
            changes()[..CHUNK].iter().map(|it| it.draft_id().to_owned()).collect();
        bencher.iter(|| {
            for id in &ids {
                drop(black_box(validate::id("eventDraftId", id.as_str().into())));
            }
        });
    });
    chunk.bench_function("accept", |bencher| {
        let take = || CHUNKS[0].clone();
        bencher.iter_batched(take, |chunk| sort(chunk, DRAFT_IDS), BatchSize::SmallInput);
    });
    chunk.bench_function("dedupe", |bencher| {
        let (changes, mut memory) = (changes(), Memory::new(1_000_000));
        bencher.iter(|| changes[..CHUNK].iter().for_each(|change| memory.remember(change)));
    });
    chunk.finish();

    let mut epoch = criterion.benchmark_group("an epoch of 20,000");
    epoch.throughput(Throughput::Elements(20_000));
    epoch.bench_function("latest", |bencher| {
        let changes = changes();
        bencher.iter_batched(|| changes.clone(), group, BatchSize::LargeInput);
    });
    epoch.bench_function("judge", |bencher| {
        let (groups, row) = (group(changes()), RowMemory::default());
        bencher.iter(|| groups.iter().for_each(|it| drop(black_box(judge(&row, &it.events)))));
    });
    epoch.bench_function("ledger", |bencher| {
        bencher.iter(|| {
            let mut ledger = Ledger::default();
            (0..20_000).for_each(|offset| ledger.enter(0, 0, offset, 400));
            ledger.settle(0, &Tally { applied: 20_000, ..Tally::default() });
            black_box(ledger.pass(1))
        });
    });
    epoch.finish();
}

criterion_group!(benches, stages);
criterion_main!(benches);
