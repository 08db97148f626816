//! Medians, spreads and percentiles of a few samples.

/// What several rounds gave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// The middle one; the mean of both middle ones of an even number.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// How many.
    pub n: usize,
}

impl Summary {
    /// Of `values`; `None` without any.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let sorted = sorted(values);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let upper = *sorted.get(sorted.len() / 2)?;
        let lower = *sorted.get((sorted.len() - 1) / 2)?;
        Some(Self {
            median: f64::midpoint(lower, upper),
            min,
            max,
            n: sorted.len(),
        })
    }

    /// Half the distance from the smallest to the largest, as a share of the median: 0.1 is +-10 %.
    #[must_use]
    pub fn spread(&self) -> f64 {
        if self.median == 0.0 {
            return 0.0;
        }
        (self.max - self.min) / 2.0 / self.median
    }
}

/// The smallest value that at least `percent` of the values do not exceed (nearest rank).
///
/// `None` with fewer than 100 values: what is called a p99 then is the maximum.
#[must_use]
pub fn percentile(values: &[f64], percent: usize) -> Option<f64> {
    if values.len() < 100 {
        return None;
    }
    let sorted = sorted(values);
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// The arithmetic mean; `None` without values.
#[must_use]
pub fn mean(values: &[f64]) -> Option<f64> {
    let n = u32::try_from(values.len()).ok().filter(|n| *n > 0)?;
    Some(values.iter().sum::<f64>() / f64::from(n))
}

/// The interval that holds the median of what `values` were drawn from with at least 95 % confidence.
///
/// It is made of order statistics (the sign test turned round), so it asks nothing of their distribution.
/// `None` with fewer than 6 values, which cannot say as much.
#[must_use]
pub fn median_interval(values: &[f64]) -> Option<(f64, f64)> {
    let (sorted, n) = (sorted(values), values.len());
    // The chance that at most `below` of n fair coins fall heads; it stays under 2.5 %.
    let count = u32::try_from(n).ok()?;
    let mut exactly = 0.5_f64.powi(i32::try_from(n).ok()?);
    let (mut at_most, mut below) = (exactly, 0_u32);
    if at_most > 0.025 {
        return None;
    }
    while below < count {
        exactly *= f64::from(count - below) / f64::from(below + 1);
        if at_most + exactly > 0.025 {
            break;
        }
        at_most += exactly;
        below += 1;
    }
    let index = usize::try_from(below).ok()?;
    Some((*sorted.get(index)?, *sorted.get(n - 1 - index)?))
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        let odd = Summary::of(&[3.0, 1.0, 2.0]).unwrap();
        assert_eq!((odd.median, odd.min, odd.max, odd.n), (2.0, 1.0, 3.0, 3));
        let even = Summary::of(&[4.0, 1.0, 2.0, 3.0]).unwrap();
        assert_eq!(even.median, 2.5);
        assert_eq!(Summary::of(&[7.0]).unwrap().median, 7.0);
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn the_spread_is_relative_to_the_median() {
        let s = Summary::of(&[9.0, 10.0, 11.0]).unwrap();
        assert!((s.spread() - 0.1).abs() < 1e-12);
        assert_eq!(Summary::of(&[0.0, 0.0]).unwrap().spread(), 0.0);
    }

    #[test]
    fn a_percentile_is_the_nearest_rank_of_a_hundred_or_more() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(percentile(&hundred, 99), Some(99.0));
        assert_eq!(percentile(&hundred, 100), Some(100.0));
        let more: Vec<f64> = (1..=500).map(f64::from).collect();
        assert_eq!(percentile(&more, 99), Some(495.0));
        assert_eq!(percentile(&hundred[1..], 99), None);
    }

    #[test]
    fn the_interval_of_a_median_is_that_of_the_tables() {
        let of = |n: u32| {
            let values: Vec<f64> = (1..=n).map(f64::from).collect();
            median_interval(&values)
        };
        // Ranks from tables of the sign test: 6 of 20 and 15 of 20, and so on.
        assert_eq!(of(5), None);
        assert_eq!(of(6), Some((1.0, 6.0)));
        assert_eq!(of(20), Some((6.0, 15.0)));
        assert_eq!(of(24), Some((7.0, 18.0)));
    }

    #[test]
    fn the_mean_of_nothing_is_nothing() {
        assert_eq!(mean(&[1.0, 2.0, 6.0]), Some(3.0));
        assert_eq!(mean(&[]), None);
    }
}
