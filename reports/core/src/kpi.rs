//! Key indicators from raw counts (ITU-T E.425; post-dial delay after RFC 6076, section 4.3).
//!
//! An indicator is a [`Ratio`]: its parts are kept, so that sums of intervals stay exact, and a denominator of zero
//! makes it undefined. Numbers for people are made in integers, rounded half away from zero.

use crate::resource::{Counters, Ratio};

impl Counters {
    /// Adds `other`, held at the end of the range.
    pub const fn add(&mut self, other: &Self) {
        macro_rules! sum {
            ($($field:ident)+) => { $(self.$field = self.$field.saturating_add(other.$field);)+ };
        }
        sum! { attempts answered user_busy no_answer terminal_reject address_error network_failure pdd_count
        pdd_sum_ms ended conversation_ms estimated packets_received packets_lost }
    }

    /// What is left when a part is taken away.
    #[must_use]
    pub const fn without(&self, part: &Self) -> Self {
        let mut rest = *self;
        macro_rules! subtract {
            ($($field:ident)+) => { $(rest.$field = rest.$field.saturating_sub(part.$field);)+ };
        }
        subtract! { attempts answered user_busy no_answer terminal_reject address_error network_failure pdd_count
        pdd_sum_ms ended conversation_ms estimated packets_received packets_lost }
        rest
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Answer-seizure ratio: answered of all attempts.
    #[must_use]
    pub const fn asr(&self) -> Ratio {
        Ratio { numerator: self.answered, denominator: self.attempts }
    }

    /// Network effectiveness ratio: answered, busy, not answered and refused by the terminal, of all attempts.
    #[must_use]
    pub const fn ner(&self) -> Ratio {
        let effective = self
            .answered
            .saturating_add(self.user_busy)
            .saturating_add(self.no_answer)
            .saturating_add(self.terminal_reject);
        Ratio { numerator: effective, denominator: self.attempts }
    }

    /// Average call duration: conversation time, milliseconds, of the calls that ended.
    #[must_use]
    pub const fn acd_ms(&self) -> Ratio {
        Ratio { numerator: self.conversation_ms, denominator: self.ended }
    }

    /// Mean post-dial delay, milliseconds, of the attempts that rang or were answered.
    #[must_use]
    pub const fn pdd_ms(&self) -> Ratio {
        Ratio { numerator: self.pdd_sum_ms, denominator: self.pdd_count }
    }

    /// Lost RTP packets of those expected (received and lost), all legs of ended calls.
    #[must_use]
    pub const fn loss(&self) -> Ratio {
        let expected = self.packets_received.saturating_add(self.packets_lost);
        Ratio { numerator: self.packets_lost, denominator: expected }
    }

    /// Conversation time in minutes.
    #[must_use]
    pub const fn minutes(&self) -> Ratio {
        Ratio { numerator: self.conversation_ms, denominator: 60_000 }
    }
}

impl Ratio {
    /// The value times `scale` as a whole number, rounded half away from zero; none when it is undefined.
    #[must_use]
    pub fn scaled(&self, scale: u32) -> Option<i64> {
        if self.denominator <= 0 {
            return None;
        }
        let (numerator, denominator) = (i128::from(self.numerator) * i128::from(scale), i128::from(self.denominator));
        let half = if numerator < 0 { -denominator } else { denominator };
        i64::try_from((2 * numerator + half) / (2 * denominator)).ok()
    }

    /// The value with `decimals` (0 to 6) decimal places; none when it is undefined.
    #[must_use]
    pub fn decimal(&self, decimals: u32) -> Option<String> {
        let one = 10_u32.pow(decimals.min(6));
        let units = self.scaled(one)?;
        let (sign, size, one) = (if units < 0 { "-" } else { "" }, units.unsigned_abs(), u64::from(one));
        let width = usize::try_from(decimals.min(6)).unwrap_or(0);
        Some(if width == 0 { format!("{sign}{size}") } else { format!("{sign}{}.{:0width$}", size / one, size % one) })
    }

    /// The value in percent with one decimal place; none when it is undefined.
    #[must_use]
    pub fn percent(&self) -> Option<String> {
        let numerator = self.numerator.saturating_mul(100);
        Self { numerator, denominator: self.denominator }.decimal(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indicators_keep_their_parts() {
        let c = Counters {
            attempts: 8,
            answered: 3,
            user_busy: 1,
            no_answer: 1,
            terminal_reject: 1,
            address_error: 1,
            network_failure: 1,
            ended: 3,
            conversation_ms: 400_000,
            pdd_count: 4,
            pdd_sum_ms: 3_001,
            packets_received: 995,
            packets_lost: 5,
            ..Counters::default()
        };
        let check = |ratio: Ratio, parts, text: &str| {
            assert_eq!(((ratio.numerator, ratio.denominator), ratio.percent().as_deref()), (parts, Some(text)));
        };
        check(c.asr(), (3, 8), "37.5");
        check(c.ner(), (6, 8), "75.0");
        check(c.loss(), (5, 1_000), "0.5");
        assert_eq!(c.acd_ms().scaled(1), Some(133_333));
        assert_eq!(c.pdd_ms().decimal(2).as_deref(), Some("750.25"));
        assert_eq!(c.minutes().decimal(1).as_deref(), Some("6.7"));
    }

    #[test]
    fn a_denominator_of_zero_is_undefined() {
        let c = Counters::default();
        for ratio in [c.asr(), c.ner(), c.acd_ms(), c.pdd_ms(), c.loss()] {
            assert_eq!((ratio.scaled(1_000), ratio.percent()), (None, None));
        }
        assert!(c.is_empty());
    }

    #[test]
    fn rounds_half_away_from_zero() {
        let check = |numerator, denominator, decimals, expected: &str| {
            let text = Ratio { numerator, denominator }.decimal(decimals);
            assert_eq!(text.as_deref(), Some(expected));
        };
        check(1, 2, 0, "1");
        check(-1, 2, 0, "-1");
        check(-1, 20, 1, "-0.1");
        check(1, 16, 2, "0.06");
        check(2, 3, 6, "0.666667");
        check(i64::MAX, 1, 0, "9223372036854775807");
        assert_eq!(Ratio { numerator: i64::MAX, denominator: 1 }.decimal(1), None);
    }
}
