//! A histogram that many threads add to: a batch at a time, so that a record costs no atomic
//! operation.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of values by their size.
#[derive(Debug)]
pub struct Histogram {
    /// The largest value of each bucket but the last, which has no largest.
    bounds: &'static [f64],
    buckets: Box<[AtomicU64]>,
    /// The bits of an f64.
    sum: AtomicU64,
}

/// The values of one batch, on their way into a histogram.
#[derive(Clone, Debug, PartialEq)]
pub struct Counts {
    /// The largest value of each bucket but the last.
    pub bounds: &'static [f64],
    /// How many values each bucket has: of its own, not of those below it.
    pub buckets: Vec<u64>,
    /// All values added up.
    pub sum: f64,
}

impl Histogram {
    /// An empty histogram with these bounds, which rise.
    pub fn new(bounds: &'static [f64]) -> Histogram {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { bounds, buckets, sum: AtomicU64::new(0) }
    }

    /// Counts one value.
    pub fn observe(&self, value: f64) {
        self.buckets[bucket(self.bounds, value)].fetch_add(1, Ordering::Relaxed);
        self.add_to_sum(value);
    }

    /// Counts the values of a batch.
    pub fn add(&self, batch: &Counts) {
        for (bucket, more) in self.buckets.iter().zip(&batch.buckets) {
            if *more > 0 {
                bucket.fetch_add(*more, Ordering::Relaxed);
            }
        }
        self.add_to_sum(batch.sum);
    }

    fn add_to_sum(&self, more: f64) {
        let added = |bits| Some((f64::from_bits(bits) + more).to_bits());
        // It is never given up, so that there is no error.
        let _before = self.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, added);
    }

    /// A batch without values, with the same bounds.
    pub fn batch(&self) -> Counts {
        Counts { bounds: self.bounds, buckets: vec![0; self.buckets.len()], sum: 0.0 }
    }

    /// What has been counted so far.
    pub fn counts(&self) -> Counts {
        Counts {
            bounds: self.bounds,
            buckets: self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect(),
            sum: f64::from_bits(self.sum.load(Ordering::Relaxed)),
        }
    }
}

impl Counts {
    /// Counts one value.
    pub fn observe(&mut self, value: f64) {
        self.buckets[bucket(self.bounds, value)] += 1;
        self.sum += value;
    }

    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// What has come since an earlier look at the same histogram.
    pub fn since(&self, earlier: &Counts) -> Counts {
        let both = self.buckets.iter().zip(&earlier.buckets);
        let buckets = both.map(|(now, then)| now.saturating_sub(*then)).collect();
        Counts { bounds: self.bounds, buckets, sum: self.sum - earlier.sum }
    }

    /// The value below which that part of the values lies, as if they were spread evenly within
    /// their bucket, as Prometheus does it; `None` where there are none. What lies past the last
    /// bound is told as that bound.
    pub fn quantile(&self, part: f64) -> Option<f64> {
        let rank = part * float(self.count());
        let (mut below, mut from) = (0, 0.0);
        for (bucket, to) in self.buckets.iter().zip(self.bounds) {
            let up_to_here = below + bucket;
            if *bucket > 0 && float(up_to_here) >= rank {
                return Some(from + (to - from) * (rank - float(below)) / float(*bucket));
            }
            (below, from) = (up_to_here, *to);
        }
        (self.count() > 0).then_some(from)
    }
}

fn bucket(bounds: &[f64], value: f64) -> usize {
    bounds.partition_point(|bound| *bound < value)
}

/// A count as a number that can be divided.
#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "no count comes near 2^53, and what is shown is rounded"
)]
pub fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_the_bucket_whose_bound_it_does_not_pass() {
        let histogram = Histogram::new(&[1.0, 10.0]);
        let mut batch = histogram.batch();
        [0.0, 1.0, 1.5, 10.0, 11.0].into_iter().for_each(|value| batch.observe(value));
        histogram.add(&batch);
        histogram.observe(100.0);
        let counts = histogram.counts();
        assert_eq!((counts.buckets.as_slice(), counts.count()), ([2, 2, 2].as_slice(), 6));
        assert!((counts.sum - 123.5).abs() < 1e-9);
        let later = counts.since(&batch);
        assert_eq!((later.buckets.as_slice(), later.sum), ([0, 0, 1].as_slice(), 100.0));
    }

    #[test]
    fn a_quantile_lies_in_the_bucket_that_holds_it() {
        let histogram = Histogram::new(&[1.0, 2.0, 4.0]);
        assert_eq!(histogram.counts().quantile(0.5), None);
        (0..10).for_each(|_| histogram.observe(1.5));
        (0..10).for_each(|_| histogram.observe(3.0));
        let counts = histogram.counts();
        assert_eq!(counts.quantile(0.25), Some(1.5));
        assert_eq!(counts.quantile(0.5), Some(2.0));
        assert_eq!(counts.quantile(0.75), Some(3.0));
        (0..100).for_each(|_| histogram.observe(1e9));
        assert_eq!(histogram.counts().quantile(0.99), Some(4.0), "no more is known");
    }
}
