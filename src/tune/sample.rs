//! What is measured with: the newest records of the topic, the same in every trial.

use crate::replay::plan::Plan;
use crate::scan::Stretch;

/// The newest offsets of a topic, about so many: of each partition the same part, so that a skewed
/// topic stays as skewed as it is.
pub(super) fn newest(whole: &Plan, records: u64) -> Plan {
    let all = offsets(whole);
    let sampled = |(partition, stretch): (&i32, &Stretch)| {
        let here = stretch.left_from(stretch.from);
        let wanted = u128::from(here) * u128::from(records);
        let wanted = wanted.div_ceil(u128::from(all.max(1)));
        let wanted = i64::try_from(wanted.min(u128::from(here))).unwrap_or(i64::MAX);
        (*partition, Stretch { from: stretch.to - wanted, to: stretch.to })
    };
    whole.iter().map(sampled).collect()
}

/// How many offsets a plan has.
pub(super) fn offsets(plan: &Plan) -> u64 {
    plan.values().map(|stretch| stretch.left_from(stretch.from)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan<const N: usize>(stretches: [(i64, i64); N]) -> Plan {
        (0..).zip(stretches.map(|(from, to)| Stretch { from, to })).collect()
    }

    #[test]
    fn the_newest_are_taken_of_each_partition_in_proportion() {
        let topic = plan([(100, 1_100), (0, 3_000), (7, 7)]);
        let sample = newest(&topic, 400);
        assert_eq!(sample, plan([(1_000, 1_100), (2_700, 3_000), (7, 7)]));
        assert_eq!(offsets(&sample), 400);
    }

    #[test]
    fn a_topic_with_less_is_taken_whole() {
        let topic = plan([(5, 10), (0, 1)]);
        assert_eq!(newest(&topic, 1_000_000), topic);
        assert_eq!(newest(&plan([(4, 4)]), 10), plan([(4, 4)]));
        assert_eq!(offsets(&newest(&topic, 1)), 2, "rounded up, a partition never vanishes");
    }
}
