//! What the bound makes of an order line: the line with its total, as the plugin `enrich` does.

use std::borrow::Cow;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    invoice: Cow<'a, str>,
    #[serde(borrow)]
    sku: Cow<'a, str>,
    #[serde(borrow)]
    description: Cow<'a, str>,
    quantity: i64,
    #[serde(borrow)]
    ts: Cow<'a, str>,
    unit_price: f64,
    customer: Option<u64>,
    #[serde(borrow)]
    country: Cow<'a, str>,
}

#[derive(Serialize)]
struct Enriched<'a> {
    invoice: &'a str,
    kind: &'a str,
    sku: &'a str,
    description: &'a str,
    quantity: i64,
    unit_price: f64,
    total_minor: i64,
    currency: &'a str,
    customer: Option<u64>,
    country: &'a str,
    ts: &'a str,
}

/// Appends the enriched line; false, and nothing, where it is no order or its total is no whole penny.
///
/// # Errors
/// It is no order line at all.
pub fn enrich(line: &[u8], arena: &mut Vec<u8>) -> Result<bool> {
    let line: Line<'_> = serde_json::from_slice(line).context("an event is no order line")?;
    let kind = match line.invoice.as_bytes() {
        [b'C', ..] => "cancellation",
        [b'0'..=b'9', ..] if line.quantity < 0 => "adjustment",
        [b'0'..=b'9', ..] => "sale",
        _ => return Ok(false),
    };
    // No price of the data has more than three decimals.
    let thousandths = (line.unit_price * 1000.0).round() as i64 * line.quantity;
    if thousandths % 10 != 0 {
        return Ok(false);
    }
    let enriched = Enriched {
        invoice: &line.invoice,
        kind,
        sku: &line.sku,
        description: &line.description,
        quantity: line.quantity,
        unit_price: line.unit_price,
        total_minor: thousandths / 10,
        currency: "GBP",
        customer: line.customer,
        country: &line.country,
        ts: &line.ts,
    };
    serde_json::to_writer(arena, &enriched)?;
    Ok(true)
}
