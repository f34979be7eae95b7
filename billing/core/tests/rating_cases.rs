//! The rating cases that peers were read by, as far as today's tariff can say them. Each of the others is named with
//! what it needs, so that none is passed over in silence.

#[cfg(test)]
mod rating_cases {
    use std::collections::BTreeSet;

    use billing::rating::cost;
    use billing::resource::{Rate, Tariff};
    use billing::tariff::CompiledTariff;
    use model::money::{Fraction, Rounding, RoundingMode};
    use serde_json::Value;
    use tandem_billing as billing;

    /// Cases that wait for tariffs with more to say, and what they need.
    const LATER: [(&str, &str); 9] = [
        ("CG-04", "two prices"),
        ("CG-05", "two prices"),
        ("CG-16", "time bands"),
        ("RM-01", "two prices"),
        ("EX-03", "validity of one rate"),
        ("BR-02", "units"),
        ("LA-08", "units"),
        ("PP-06", "prepaid with a bundle"),
        ("EX-01", "bundles"),
    ];

    fn cases() -> Vec<Value> {
        let all: Value = serde_json::from_str(include_str!("rating-cases.json")).unwrap();
        all["cases"].as_array().unwrap().clone()
    }

    fn text(value: &Value) -> &str {
        value.as_str().unwrap()
    }

    fn ms(seconds: &Value) -> i64 {
        seconds.as_i64().unwrap() * 1_000
    }

    fn rounding(rule: &Value) -> Option<Rounding> {
        let mode = match text(rule.get("method").or_else(|| rule.get("mode"))?) {
            "up" => RoundingMode::Up,
            "down" => RoundingMode::Down,
            "half_up" => RoundingMode::HalfUp,
            "half_even" => RoundingMode::HalfEven,
            _ => return None,
        };
        Some(Rounding { mode, decimals: u32::try_from(rule["decimals"].as_u64()?).unwrap() })
    }

    /// The rates of a rule, when they can say it: always active, one price, one initial period.
    fn rates(tariff: &Value, rule: &Value) -> Option<Vec<Rate>> {
        let slots = rule["slots"].as_array()?;
        let (first, rest) = slots.split_first()?;
        let always = rule["band"] == "any" && rule.get("valid_from").is_none() && rule.get("valid_to").is_none();
        let same = match rest {
            [] => true,
            [next] => {
                next["price"] == first["price"]
                    && next["per_s"] == first["per_s"]
                    && next["from_s"] == first["increment_s"]
            }
            _ => false,
        };
        if !always || !same {
            return None;
        }
        let destination = tariff["destinations"].as_array()?.iter().find(|d| d["id"] == rule["destination"])?;
        let prefixes = destination["prefixes"].as_array()?.iter().flat_map(|prefix| match text(prefix) {
            // Everywhere: every first digit.
            "*" => (0..=9).map(|digit| digit.to_string()).collect(),
            prefix => vec![prefix.to_owned()],
        });
        let rate = |prefix| Rate {
            prefix,
            description: String::new(),
            connect_fee: text(&rule["connect_fee"]).parse().unwrap(),
            price: text(&first["price"]).parse().unwrap(),
            per_ms: ms(&first["per_s"]),
            initial_ms: ms(&first["increment_s"]),
            increment_ms: ms(&slots.last().unwrap()["increment_s"]),
        };
        Some(prefixes.map(rate).collect())
    }

    /// Runs a case; false when today's tariff cannot say it.
    fn run(case: &Value) -> bool {
        match text(&case["kind"]) {
            "rounding" => {
                for case in case["cases"].as_array().unwrap() {
                    let value: model::money::Amount = text(&case["value"]).parse().unwrap();
                    let exact = Fraction::new(i128::from(value.units()), 1_000_000).unwrap();
                    assert_eq!(exact.round(rounding(case).unwrap()).unwrap().to_string(), text(&case["expect"]));
                }
                true
            }
            "voice_cost" | "error" => voice(case),
            _ => false,
        }
    }

    fn voice(case: &Value) -> bool {
        let (rules, call, expected) = (case["tariff"]["rules"].as_array().unwrap(), &case["call"], &case["expect"]);
        let [rule] = &rules[..] else { return false };
        let (Some(rates), Some(rounding)) = (rates(&case["tariff"], rule), rounding(&rule["rounding"])) else {
            return false;
        };
        let tariff = Tariff {
            id: "00000000-0000-7000-8000-000000000001".parse().unwrap(),
            account: "00000000-0000-7000-8000-000000000002".parse().unwrap(),
            name: text(&case["id"]).to_owned(),
            currency: "XXX".parse().unwrap(),
            rounding,
            rates,
            version: 1,
        };
        let tariff = CompiledTariff::new(tariff).unwrap();
        let called = text(&call["destination"]);
        let rate = tariff.longest_prefix(called.strip_prefix('+').unwrap_or(called));
        if expected.get("error").is_some() {
            assert_eq!((rate, text(&expected["error"])), (None, "no_destination"), "{}", case["id"]);
            return true;
        }
        let found = cost(rate.unwrap(), rounding, ms(&call["duration_s"])).unwrap();
        let wanted: model::money::Amount = text(&expected["cost"]).parse().unwrap();
        let billed: i64 = text(&expected["billed_duration_s"]).parse().unwrap();
        assert_eq!((found.amount, found.billed_ms), (wanted, billed * 1_000), "{}", case["id"]);
        if let Some(exact) = expected.get("cost_before_rounding") {
            assert_eq!(found.exact.to_string(), text(exact));
        }
        true
    }

    #[test]
    fn every_case_is_right_or_named() {
        let left: BTreeSet<String> =
            cases().iter().filter(|case| !run(case)).map(|case| text(&case["id"]).to_owned()).collect();
        let later: BTreeSet<String> = LATER.iter().map(|(id, _)| (*id).to_owned()).collect();
        assert_eq!(left, later);
    }
}
