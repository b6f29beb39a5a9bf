//! Order lines, and what must come of each: a second calculation, from the README of `enrich`, that
//! shares no code with the plugin. It cuts text and multiplies whole numbers, and parses no JSON.

use anyhow::{Context, Result};
use millstream_test_support::retail::Retail;

/// How often the shipped sample is taken where the full data set is not there.
const ROUNDS: usize = 20;

/// Order lines of a run without an end before the first comes again, and how often something else
/// stands among them.
const DIFFERENT: usize = 20_000;
const STRANGE: usize = 97;

/// An event to produce.
#[derive(Clone, Debug)]
pub struct Line {
    pub key: String,
    pub value: String,
    pub becomes: Becomes,
}

/// What must come of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Becomes {
    /// A derived event with this value, which alerts or does not.
    Order { value: String, large: bool },
    /// A dead letter with this code.
    Rejected(&'static str),
}

/// All lines of the data set, or the sample several times over, by article; among them some that are
/// no order lines at all.
pub fn all() -> Result<Vec<Line>> {
    let retail = Retail::load()?;
    let rounds = if retail.full { 1 } else { ROUNDS };
    let mut lines = Vec::with_capacity(retail.len() * rounds);
    for _ in 0..rounds {
        for line in retail.lines() {
            lines.push(order_line(line)?);
        }
    }
    eprintln!("{} events, from {}", lines.len(), retail.source);
    let strangers = strangers();
    let step = lines.len() / strangers.len();
    for (index, stranger) in strangers.into_iter().enumerate() {
        lines.insert(index * step, stranger);
    }
    Ok(lines)
}

/// The first `count` lines of whichever data is there, which begins anew at its end: a test that lets
/// something happen amid many lines would find none left with the sample.
pub fn some(count: usize) -> Result<Vec<Line>> {
    let retail = Retail::load()?;
    let all = std::iter::repeat_with(|| retail.lines()).flatten();
    all.take(count).map(order_line).collect()
}

/// Lines for a run without an end, which begins with the first again: order lines, and now and then
/// something else under the key of the one before it.
pub fn mixed() -> Result<Vec<Line>> {
    let strangers = strangers();
    let mut lines = Vec::new();
    for (at, line) in some(DIFFERENT)?.into_iter().enumerate() {
        let key = line.key.clone();
        lines.push(line);
        if at % STRANGE == 0 {
            let stranger = strangers[at / STRANGE % strangers.len()].clone();
            lines.push(Line { key, ..stranger });
        }
    }
    Ok(lines)
}

fn order_line(line: &str) -> Result<Line> {
    let sku = cut(line, "\"sku\": \"", "\", \"description\"")?;
    Ok(Line {
        key: sku.to_owned(),
        value: line.to_owned(),
        becomes: becomes(line).with_context(|| format!("not as the data set writes it: {line}"))?,
    })
}

/// Lines that only a dead letter can come of, under keys that order lines have too.
pub fn strangers() -> Vec<Line> {
    let wordy = r#"{"invoice": "1", "sku": "85123A", "description": "", "quantity": 1, "ts": "", "unit_price": 1.1234567890123456789, "customer": null, "country": ""}"#;
    let huge = r#"{"invoice": "1", "sku": "85123A", "description": "", "quantity": 9000000000000000000, "ts": "", "unit_price": 1.10, "customer": null, "country": ""}"#;
    [
        ("no JSON at all", "decode"),
        ("{\"invoice\": ", "decode"),
        ("[1, 2, 3]", "not-an-order"),
        (wordy, "bad-price"),
        (huge, "total-too-large"),
    ]
    .map(|(value, code)| Line {
        key: "85123A".to_owned(),
        value: value.to_owned(),
        becomes: Becomes::Rejected(code),
    })
    .into()
}

/// What comes of a line, by the README of `enrich` with `alert_above = 10000`. The data set writes
/// the fields in one order, and escapes nothing but quotation marks, so that text is taken over as
/// it stands.
fn becomes(line: &str) -> Result<Becomes> {
    let invoice = cut(line, "{\"invoice\": ", ", \"sku\": ")?;
    let sku = cut(line, ", \"sku\": ", ", \"description\": ")?;
    let description = cut(line, ", \"description\": ", ", \"quantity\": ")?;
    let quantity = cut(line, ", \"quantity\": ", ", \"ts\": ")?;
    let ts = cut(line, ", \"ts\": ", ", \"unit_price\": ")?;
    let price = cut(line, ", \"unit_price\": ", ", \"customer\": ")?;
    let customer = cut(line, ", \"customer\": ", ", \"country\": ")?;
    let country = cut(line, ", \"country\": ", "}")?;

    let pieces: i128 = quantity.parse()?;
    let kind = match invoice.as_bytes().get(1) {
        Some(b'C') => "cancellation",
        Some(b'0'..=b'9') if pieces < 0 => "adjustment",
        Some(b'0'..=b'9') => "sale",
        _ => return Ok(Becomes::Rejected("not-an-order")),
    };
    let Some(pence) = pence(pieces, price)? else {
        return Ok(Becomes::Rejected("fractional-total"));
    };
    let value = [
        "{\"invoice\":",
        invoice,
        ",\"kind\":\"",
        kind,
        "\",\"sku\":",
        sku,
        ",\"description\":",
        description,
        ",\"quantity\":",
        quantity,
        ",\"unit_price\":",
        price,
        ",\"total_minor\":",
        &pence.to_string(),
        ",\"currency\":\"GBP\",\"customer\":",
        customer,
        ",\"country\":",
        country,
        ",\"ts\":",
        ts,
        "}",
    ]
    .concat();
    Ok(Becomes::Order {
        value,
        large: kind == "sale" && pence > 10_000,
    })
}

/// Pieces × price in pence; `None` where that is no whole number.
fn pence(pieces: i128, price: &str) -> Result<Option<i128>> {
    let (pounds, rest) = price.split_once('.').unwrap_or((price, ""));
    let digits: i128 = format!("{pounds}{rest}").parse()?;
    let hundredfold = pieces * digits * 100;
    let unit = 10_i128.pow(u32::try_from(rest.len())?);
    Ok((hundredfold % unit == 0).then(|| hundredfold / unit))
}

/// What stands between two texts.
fn cut<'a>(line: &'a str, before: &str, after: &str) -> Result<&'a str> {
    let start = line.find(before).with_context(|| format!("no {before}"))? + before.len();
    let length = line[start..]
        .find(after)
        .with_context(|| format!("no {after}"))?;
    Ok(&line[start..start + length])
}

#[test]
fn the_calculation_agrees_with_the_readme_of_enrich() {
    let readme = include_str!("../../../../plugins/enrich/README.md");
    let mut examples = readme
        .split("```json\n")
        .skip(1)
        .filter_map(|rest| rest.split("\n```").next());
    let (Some(input), Some(output)) = (examples.next(), examples.next()) else {
        panic!("the README shows no input and output")
    };
    let expected = Becomes::Order {
        value: output.to_owned(),
        large: false,
    };
    assert_eq!(becomes(input).unwrap(), expected);
}

#[test]
fn fractions_of_a_penny_are_no_price() {
    assert_eq!(pence(1, "0.001").unwrap(), None);
    assert_eq!(pence(10, "0.001").unwrap(), Some(1));
    assert_eq!(pence(-3, "7").unwrap(), Some(-2100));
    assert_eq!(pence(1, "-0.5").unwrap(), Some(-50));
}
