//! An order line as the shop writes it, and as it goes on.

use std::borrow::Cow;

use millstream_plugin::prelude::*;
use serde_json::value::RawValue;

use crate::decimal::{Decimal, NotExact};

/// One line of an invoice. Text and the price's digits are borrowed from the event.
#[derive(Deserialize)]
pub struct OrderLine<'a> {
    #[serde(borrow)]
    invoice: Cow<'a, str>,
    #[serde(borrow)]
    sku: Cow<'a, str>,
    #[serde(borrow)]
    description: Cow<'a, str>,
    quantity: i64,
    #[serde(borrow)]
    ts: Cow<'a, str>,
    /// The digits as written: a floating-point number would lose pennies.
    #[serde(borrow)]
    unit_price: &'a RawValue,
    customer: Option<u64>,
    #[serde(borrow)]
    country: Cow<'a, str>,
}

/// What a line stands for.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Sale,
    /// Goods that came back; its total is negative.
    Cancellation,
    /// Stock that was lost, broken or miscounted.
    Adjustment,
}

/// A line with its total.
#[derive(Serialize)]
pub struct Enriched<'a> {
    invoice: &'a str,
    kind: Kind,
    sku: &'a str,
    description: &'a str,
    quantity: i64,
    unit_price: &'a RawValue,
    total_minor: i64,
    currency: &'a str,
    customer: Option<u64>,
    country: &'a str,
    ts: &'a str,
}

impl OrderLine<'_> {
    /// What the line stands for, by its invoice number: digits are orders, a C before them cancels.
    pub fn kind(&self) -> Result<Kind> {
        match self.invoice.as_bytes() {
            [b'C', ..] => Ok(Kind::Cancellation),
            [b'0'..=b'9', ..] if self.quantity < 0 => Ok(Kind::Adjustment),
            [b'0'..=b'9', ..] => Ok(Kind::Sale),
            _ => Err(Error::reject(
                "not-an-order",
                format!("invoice {:?} is an entry of the books", self.invoice),
            )),
        }
    }

    /// Quantity times price, in units of 10^-`minor_digits`.
    pub fn total_minor(&self, minor_digits: u32) -> Result<i64> {
        let price = Decimal::parse(self.unit_price.get()).ok_or_else(|| {
            Error::reject("bad-price", format!("{} is no price", self.unit_price))
        })?;
        price
            .times(self.quantity, minor_digits)
            .map_err(|not_exact| {
                let code = match not_exact {
                    NotExact::Fraction => "fractional-total",
                    NotExact::TooLarge => "total-too-large",
                };
                Error::reject(code, format!("{} × {}", self.quantity, self.unit_price))
            })
    }

    /// The line with its total.
    pub fn enriched<'a>(&'a self, kind: Kind, total_minor: i64, currency: &'a str) -> Enriched<'a> {
        Enriched {
            invoice: &self.invoice,
            kind,
            sku: &self.sku,
            description: &self.description,
            quantity: self.quantity,
            unit_price: self.unit_price,
            total_minor,
            currency,
            customer: self.customer,
            country: &self.country,
            ts: &self.ts,
        }
    }
}
