//! Nexmark's q22 by named fields: what it does not ask for is not parsed.

use millstream_plugin::prelude::*;

#[derive(Serialize)]
struct Split<'a> {
    auction: u64,
    bidder: u64,
    price: u64,
    channel: &'a str,
    dir1: &'a str,
    dir2: &'a str,
    dir3: &'a str,
}

fn split(event: Event<'_>, out: &mut Outbox) -> Result {
    let names = ["auction", "bidder", "price", "channel", "url"];
    let [auction, bidder, price, channel, url] = event.fields(names)?;
    let url = url.text()?;
    // Behind the scheme, an empty part and the host.
    let mut parts = url.split('/').skip(3);
    let mut part = || parts.next().unwrap_or_default();
    out.json(&Split {
        auction: auction.parse()?,
        bidder: bidder.parse()?,
        price: price.parse()?,
        channel: &channel.text()?,
        dir1: part(),
        dir2: part(),
        dir3: part(),
    })
}

export!(fn split);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folders_of_the_url_come_out() {
        let bid = r#"{"auction":1,"bidder":2,"price":3,"channel":"Apple","url":"https://www.nexmark.com/abc/de/f/item.htm?query=1","dateTime":4,"extra":"x"}"#;
        let run = Harness::function(split).run([TestEvent::text(bid), TestEvent::text("{}")]);
        assert_eq!(
            run.only_output().text(),
            r#"{"auction":1,"bidder":2,"price":3,"channel":"Apple","dir1":"abc","dir2":"de","dir3":"f"}"#
        );
        assert_eq!(run.failures().count(), 1);
    }
}
