//! What must come of an order line, calculated here and not by the plugin.

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// What `enrich` must make of a line.
#[derive(Clone, Debug, PartialEq)]
pub enum Expected {
    /// The enriched line, and whether it is a large sale.
    Enriched(Value, bool),
    /// Rejected with this code.
    Rejected(&'static str),
}

/// Calculates it in thousandths of a pound: no price of the data has more than three decimals.
///
/// # Errors
/// A line of the data is not as this calculation knows it.
pub fn expected(line: &str, alert_above: i64) -> Result<Expected> {
    let Ok(source) = line.parse::<Value>() else {
        return Ok(Expected::Rejected("decode"));
    };
    let invoice = source["invoice"].as_str().context("no invoice")?;
    let quantity = source["quantity"].as_i64().context("no quantity")?;
    let price = source["unit_price"].as_f64().context("no price")?;
    let kind = match invoice.chars().next() {
        Some('C') => "cancellation",
        Some('0'..='9') if quantity < 0 => "adjustment",
        Some('0'..='9') => "sale",
        _ => return Ok(Expected::Rejected("not-an-order")),
    };
    let thousandths = (price * 1000.0).round() as i64 * quantity;
    if thousandths % 10 != 0 {
        return Ok(Expected::Rejected("fractional-total"));
    }
    let total = thousandths / 10;
    let enriched = json!({
        "invoice": invoice,
        "kind": kind,
        "sku": source["sku"],
        "description": source["description"],
        "quantity": quantity,
        "unit_price": source["unit_price"],
        "total_minor": total,
        "currency": "GBP",
        "customer": source["customer"],
        "country": source["country"],
        "ts": source["ts"],
    });
    Ok(Expected::Enriched(
        enriched,
        kind == "sale" && total > alert_above,
    ))
}

/// The rules that an enriched line breaks, in the order of their alerts, with the plugin's defaults.
///
/// # Errors
/// It is no enriched line.
pub fn rules(enriched: &Value) -> Result<Vec<&'static str>> {
    let total = enriched["total_minor"].as_i64().context("no total")?;
    let quantity = enriched["quantity"].as_i64().context("no quantity")?;
    let mut rules = Vec::new();
    match enriched["kind"].as_str() {
        Some("sale") if total >= 100_000 => rules.push("large-sale"),
        Some("sale") if total == 0 && quantity >= 10 => rules.push("given-away"),
        Some("cancellation") if total <= -100_000 => rules.push("large-cancellation"),
        _ => {}
    }
    if quantity.abs() >= 1_000 {
        rules.push("bulk-quantity");
    }
    Ok(rules)
}

/// The invoice number of a line, which is its key.
///
/// # Errors
/// The line has none.
pub fn invoice(line: &str) -> Result<&str> {
    let rest = line.split_once("\"invoice\": \"").context("no invoice")?.1;
    Ok(rest.split_once('"').context("the invoice does not end")?.0)
}
