//! How many workers a token is worth. Pure: measured steps go in, the next step or the answer comes out.
//!
//! In scope: doubling while it pays. Out of scope: measuring. More workers than pay only lengthen the slowest signatures: each waits inside
//! the token instead of in the queue, where its deadline could still end it.

/// Throughput must grow by more than this share for a doubling to pay.
const WORTH: f64 = 0.05;

/// What to do after some steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Measure with this many workers.
    Try(usize),
    /// This many it is.
    Keep(usize),
}

/// One step that was measured: workers, and signatures a second.
pub(super) type Measured = (usize, f64);

/// What to do after these steps, with at most `most` workers (at least 1). A step that failed has the throughput 0, and ends the search.
pub(super) fn next(steps: &[Measured], most: usize) -> Next {
    let Some(&(workers, rate)) = steps.last() else { return Next::Try(1) };
    let before = steps.len().checked_sub(2).and_then(|place| steps.get(place));
    match before {
        Some(&(fewer, slower)) if rate <= slower * (1.0 + WORTH) => Next::Keep(fewer),
        _ if workers >= most || rate <= 0.0 => Next::Keep(workers),
        _ => Next::Try(workers.saturating_mul(2).min(most)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Follows the decisions on a token with this throughput; the numbers of workers that were tried, and the answer.
    fn walk(rate: impl Fn(usize) -> f64, most: usize) -> (Vec<usize>, usize) {
        let mut steps = Vec::new();
        loop {
            match next(&steps, most) {
                Next::Try(workers) => steps.push((workers, rate(workers))),
                Next::Keep(workers) => return (steps.into_iter().map(|(workers, _)| workers).collect(), workers),
            }
        }
    }

    #[test]
    fn it_doubles_while_it_pays() {
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let four_cores = |workers: usize| workers.min(4) as f64 * 100.0;
        assert_eq!(walk(four_cores, 64), (vec![1, 2, 4, 8], 4));
        assert_eq!(walk(four_cores, 3), (vec![1, 2, 3], 3), "the token has sessions for three");
        assert_eq!(walk(four_cores, 1), (vec![1], 1));
    }

    #[test]
    fn five_percent_more_do_not_pay() {
        assert_eq!(walk(|workers| if workers == 1 { 100.0 } else { 105.0 }, 64), (vec![1, 2], 1));
        assert_eq!(walk(|workers| if workers == 1 { 100.0 } else { 105.1 }, 64), (vec![1, 2, 4], 2));
        assert_eq!(walk(|workers| if workers == 1 { 100.0 } else { 60.0 }, 64), (vec![1, 2], 1), "more can be worse");
    }

    #[test]
    fn a_step_that_failed_ends_the_search() {
        assert_eq!(
            walk(|workers| if workers < 4 { 100.0 * f64::from(u8::try_from(workers).unwrap()) } else { 0.0 }, 64),
            (vec![1, 2, 4], 2)
        );
        assert_eq!(walk(|_| 0.0, 64), (vec![1], 1));
    }
}
