//! What several measurements of one thing say together. A median and quartiles: one trial that
//! something disturbed changes neither.

/// The middle one, or the mean of the two in the middle; 0 of none.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The distance of the quartiles, as a part of the median; 0 of fewer than two.
pub fn spread(values: &[f64]) -> f64 {
    let median = median(values);
    if median <= 0.0 {
        return 0.0;
    }
    (quantile(values, 0.75) - quantile(values, 0.25)) / median
}

/// How far the median itself may be off, as a part of it: its standard error, 1.25 sigma / sqrt(n),
/// with sigma taken from the distance of the quartiles, which is 1.35 sigma. It shrinks with every
/// repetition; the spread does not. One measurement says nothing of it.
pub fn uncertainty(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return f64::INFINITY;
    }
    1.25 / 1.35 * spread(values) / count(values.len()).sqrt()
}

/// The value below which that part of them lies, between two of them in proportion.
fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let place = part * count(last);
    let below = whole(place);
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * (place - count(below))
}

#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "no count comes near 2^53")]
fn count(count: usize) -> f64 {
    count as f64
}

#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a place among few values, never negative"
)]
fn whole(place: f64) -> usize {
    place as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_and_the_quartiles_lie_where_they_should() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!((median(&[]), spread(&[]), spread(&[7.0])), (0.0, 0.0, 0.0));
        // Quartiles 2 and 4 around 3.
        assert!((spread(&[5.0, 1.0, 3.0, 2.0, 4.0]) - 2.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn one_disturbed_trial_of_many_changes_little() {
        let calm = [100.0, 101.0, 99.0, 100.0, 102.0];
        let disturbed = [100.0, 101.0, 99.0, 100.0, 20.0];
        assert_eq!(median(&disturbed), 100.0);
        assert!(spread(&disturbed) < 0.03 && spread(&calm) < 0.03);
    }

    #[test]
    fn repeating_makes_the_median_surer_and_one_measurement_says_nothing() {
        assert_eq!(uncertainty(&[1.0]), f64::INFINITY);
        let few = [90.0, 95.0, 100.0, 105.0, 110.0];
        let many = few.repeat(9);
        assert!(uncertainty(&many) < uncertainty(&few) / 2.0);
    }
}
