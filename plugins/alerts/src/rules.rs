//! What makes a line worth a look.

use std::borrow::Cow;

use millstream_plugin::prelude::*;

/// The limits, and the consumer's `config`. Amounts are in minor units of the line's currency.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// A sale or a cancellation worth this much or more.
    large_total: i64,
    /// So many pieces or more on one line, in or out.
    bulk_quantity: u64,
    /// So many pieces or more sold for nothing.
    free_quantity: i64,
    /// Digits behind the point in the texts.
    minor_digits: u32,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            large_total: 100_000,
            bulk_quantity: 1_000,
            free_quantity: 10,
            minor_digits: 2,
        }
    }
}

/// The fields of an enriched line that the rules read.
#[derive(Deserialize)]
pub struct Line<'a> {
    #[serde(borrow)]
    invoice: Cow<'a, str>,
    kind: Kind,
    #[serde(borrow)]
    sku: Cow<'a, str>,
    #[serde(borrow)]
    description: Cow<'a, str>,
    quantity: i64,
    total_minor: i64,
    #[serde(borrow)]
    currency: Cow<'a, str>,
    customer: Option<u64>,
    #[serde(borrow)]
    ts: Cow<'a, str>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Sale,
    Cancellation,
    Adjustment,
}

/// A rule that a line breaks.
#[derive(Serialize)]
pub struct Alert<'a> {
    pub rule: &'static str,
    reason: String,
    invoice: &'a str,
    sku: &'a str,
    customer: Option<u64>,
    quantity: i64,
    total_minor: i64,
    currency: &'a str,
    ts: &'a str,
}

impl Rules {
    /// The rules that the line breaks, in a fixed order.
    pub fn check<'a>(&self, line: &'a Line<'a>) -> impl Iterator<Item = Alert<'a>> {
        let pieces = line.quantity.unsigned_abs();
        let what = &line.description;
        let worth = self.amount(line.total_minor, &line.currency);
        let large = line.total_minor.unsigned_abs() >= self.large_total.unsigned_abs();
        let given_away = line.total_minor == 0 && line.quantity >= self.free_quantity;
        let by_kind = match line.kind {
            Kind::Sale if large && line.total_minor > 0 => {
                Some(("large-sale", format!("{pieces} × {what} sold for {worth}")))
            }
            Kind::Sale if given_away => {
                Some(("given-away", format!("{pieces} × {what} sold for nothing")))
            }
            Kind::Cancellation if large => Some((
                "large-cancellation",
                format!("{pieces} × {what} cancelled, worth {worth}"),
            )),
            Kind::Sale | Kind::Cancellation | Kind::Adjustment => None,
        };
        let bulk = (pieces >= self.bulk_quantity)
            .then(|| ("bulk-quantity", format!("{pieces} × {what} on one line")));
        by_kind.into_iter().chain(bulk).map(|(rule, reason)| Alert {
            rule,
            reason,
            invoice: &line.invoice,
            sku: &line.sku,
            customer: line.customer,
            quantity: line.quantity,
            total_minor: line.total_minor,
            currency: &line.currency,
            ts: &line.ts,
        })
    }

    /// An amount for a person, without its sign.
    fn amount(&self, minor: i64, currency: &str) -> String {
        let digits = self.minor_digits.min(18);
        let unit = 10_u64.pow(digits);
        let minor = minor.unsigned_abs();
        match digits {
            0 => format!("{minor} {currency}"),
            _ => {
                let width = digits as usize;
                format!("{}.{:0width$} {currency}", minor / unit, minor % unit)
            }
        }
    }
}
