//! What becomes of a claim: a charge, a reason to wait, or nothing.

use model::id::{AccountId, TariffId};
use model::money::{Amount, Currency, Fraction};
use model::tenancy::AccountPath;

use crate::mediation::{Claim, DURATION_MAX_MS, Destination, Leg};
use crate::rating;
use crate::resource::{ON_NET_PREFIX, Side, SuspenseCode, Usage, UsageState};
use crate::tariff::{CompiledTariff, TariffBook};

/// One charge, before it has a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// Who is charged (sell) or whom the trunk belongs to (buy).
    pub account: AccountId,
    /// Its path at the time of the call.
    pub path: AccountPath,
    /// Which side.
    pub side: Side,
    /// By which tariff.
    pub tariff: TariffId,
    /// In which version.
    pub tariff_version: i64,
    /// The prefix that matched.
    pub prefix: String,
    /// The charged time, milliseconds.
    pub billed_ms: i64,
    /// The currency.
    pub currency: Currency,
    /// The exact amount.
    pub exact: Fraction,
    /// The charged amount.
    pub amount: Amount,
}

/// What becomes of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nobody is charged.
    Uncharged,
    /// It has a price.
    Rated(Charge),
    /// It waits.
    Suspended {
        /// Which side.
        side: Side,
        /// The class of the reason.
        code: SuspenseCode,
        /// The reason with its values, and what to do.
        detail: String,
    },
}

impl Outcome {
    /// Where the usage stands with it.
    #[must_use]
    pub const fn state(&self) -> UsageState {
        match self {
            Self::Uncharged => UsageState::Uncharged,
            Self::Rated(_) => UsageState::Rated,
            Self::Suspended { .. } => UsageState::Suspense,
        }
    }
}

/// Rates the claim of a leg by the tariffs of `book`. A trunk without a tariff is free of charge; a subscriber
/// without one is a reason to wait.
#[must_use]
pub fn assess(leg: &Leg, book: &TariffBook) -> Outcome {
    let usage = &leg.usage;
    let (side, destination, tariff) = match leg.claim {
        Claim::Nobody => return Outcome::Uncharged,
        Claim::Sell(destination) => (Side::Sell, destination, book.sell(&usage.path, usage.answered_at)),
        Claim::Buy(trunk, destination) => match book.buy(trunk, usage.answered_at) {
            Some(tariff) => (Side::Buy, destination, Some(tariff)),
            None => return Outcome::Uncharged,
        },
    };
    let suspended = |code, detail| Outcome::Suspended { side, code, detail };
    if let Some(defect) = defect(usage) {
        return suspended(SuspenseCode::InvalidUsage, defect);
    }
    let Some(tariff) = tariff else {
        let detail = format!(
            "no tariff is assigned to the account or above it for {}: assign one, then retry",
            usage.answered_at
        );
        return suspended(SuspenseCode::NoTariff, detail);
    };
    match charge(usage, side, destination, tariff) {
        Ok(charge) => Outcome::Rated(charge),
        Err((code, detail)) => suspended(code, detail),
    }
}

fn charge(
    usage: &Usage,
    side: Side,
    destination: Destination,
    tariff: &CompiledTariff,
) -> Result<Charge, (SuspenseCode, String)> {
    let (rate, what) = match destination {
        Destination::OnNet => (tariff.on_net(), format!("calls within the customer (prefix {ON_NET_PREFIX})")),
        Destination::Number(number) => (tariff.longest_prefix(&number.digits()), number.masked()),
        Destination::Unknown => (None, "a call to no number".to_owned()),
    };
    let rate = rate.ok_or_else(|| {
        let detail = format!("tariff {} has no rate for {what}: assign one that has, then retry", tariff.id());
        (SuspenseCode::NoRate, detail)
    })?;
    let cost = rating::cost(rate, tariff.rounding(), usage.duration_ms).map_err(|_| {
        let detail = format!(
            "{} ms at prefix {} of tariff {} come to more than can be charged: check the price",
            usage.duration_ms,
            rate.prefix,
            tariff.id()
        );
        (SuspenseCode::MoneyOverflow, detail)
    })?;
    Ok(Charge {
        account: usage.account,
        path: usage.path.clone(),
        side,
        tariff: tariff.id(),
        tariff_version: tariff.version(),
        prefix: rate.prefix.clone(),
        billed_ms: cost.billed_ms,
        currency: tariff.currency(),
        exact: cost.exact,
        amount: cost.amount,
    })
}

/// What cannot be of a usage.
fn defect(usage: &Usage) -> Option<String> {
    if usage.duration_ms < 0 || usage.duration_ms > DURATION_MAX_MS {
        return Some(format!("the duration is {} ms, not 0 to {DURATION_MAX_MS}", usage.duration_ms));
    }
    (usage.ended_at < usage.answered_at)
        .then(|| format!("the call ended at {}, before its answer at {}", usage.ended_at, usage.answered_at))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::event::fact::{Fact, Party};
    use model::money::Price;
    use model::time::Timestamp;

    use super::*;
    use crate::mediation::mediate;
    use crate::samples;

    /// The provider sells with a connect fee of 0.05 at 0.06 a minute, on-net free, and buys at half of it.
    fn book() -> TariffBook {
        let sell = samples::tariff(vec![samples::rate("43", "0.05", "0.06"), samples::rate("onnet", "0", "0")]);
        let buy = samples::tariff(vec![samples::rate("43", "0", "0.03")]);
        let compile = |tariff| Arc::new(CompiledTariff::new(tariff).unwrap());
        let mut book = TariffBook::default();
        let (_, provider) = samples::account(1);
        book.assign_account(provider.ancestry()[0].clone(), Timestamp(0), None, compile(sell));
        let Party::Trunk(trunk) = samples::trunk() else { unreachable!() };
        book.assign_trunk(trunk.trunk, Timestamp(0), None, compile(buy));
        book
    }

    fn outcomes(fact: &Fact, book: &TariffBook) -> Vec<String> {
        let show = |leg| match assess(&leg, book) {
            Outcome::Uncharged => "uncharged".to_owned(),
            Outcome::Rated(c) => format!("{} {} {} {}", c.side.as_str(), c.prefix, c.billed_ms, c.amount),
            Outcome::Suspended { side, code, .. } => format!("{} {}", side.as_str(), code.as_str()),
        };
        mediate(fact).into_iter().map(show).collect()
    }

    #[test]
    fn each_kind_of_call_has_its_outcome() {
        let check = |a, b, called, duration, expected: &[&str]| {
            let fact = Fact::Ended(samples::ended(a, b, called, duration));
            assert_eq!(outcomes(&fact, &book()), expected);
        };
        let [two, three, trunk] = [samples::subscriber(2), samples::subscriber(3), samples::trunk()];
        let (two, three, trunk) = (|| two.clone(), || three.clone(), || trunk.clone());
        let number = Some("+43720123456");
        check(two(), Some(trunk()), number, 60_000, &["sell 43 60000 0.11", "buy 43 60000 0.03"]);
        check(two(), Some(three()), number, 60_000, &["sell 43 60000 0.11", "uncharged"]);
        check(two(), Some(two()), number, 60_000, &["sell onnet 60000 0.00", "uncharged"]);
        check(two(), Some(trunk()), number, 0, &["sell 43 0 0.00", "buy 43 0 0.00"]);
        check(two(), Some(trunk()), Some("+49301234"), 1, &["sell no_rate", "buy no_rate"]);
        check(two(), Some(trunk()), number, -1, &["sell invalid_usage", "buy invalid_usage"]);
        check(two(), Some(trunk()), number, DURATION_MAX_MS + 1, &["sell invalid_usage", "buy invalid_usage"]);
        check(trunk(), Some(two()), number, 60_000, &["uncharged", "uncharged"]);
        let aborted = Fact::AnswerAborted(samples::aborted(two(), Some(trunk()), number, 1_000));
        assert_eq!(outcomes(&aborted, &book()), ["uncharged", "buy 43 1000 0.0005"]);
        let call = Fact::Ended(samples::ended(two(), Some(trunk()), number, 1_000));
        assert_eq!(outcomes(&call, &TariffBook::default()), ["sell no_tariff", "uncharged"]);
    }

    #[test]
    fn a_call_that_ends_before_its_answer_waits() {
        let mut fact = samples::ended(samples::subscriber(2), None, Some("+43720123456"), 1_000);
        fact.ended_at = Timestamp(2_999);
        assert_eq!(outcomes(&Fact::Ended(fact), &book()), ["sell invalid_usage"]);
    }

    #[test]
    fn an_absurd_price_waits() {
        let rates = vec![samples::rate("43", &Price::from_units(i64::MAX).to_string(), "0")];
        let mut book = TariffBook::default();
        let (_, path) = samples::account(2);
        book.assign_account(path, Timestamp(0), None, Arc::new(CompiledTariff::new(samples::tariff(rates)).unwrap()));
        let fact = samples::ended(samples::subscriber(2), None, Some("+43720123456"), 1_000);
        assert_eq!(outcomes(&Fact::Ended(fact), &book), ["sell money_overflow"]);
    }
}
