//! Lets the bids of one class of bidders pass, one in a hundred, by what they say.

use millstream_plugin::prelude::*;

#[derive(Deserialize)]
struct Bid {
    bidder: u64,
}

fn filter(event: Event<'_>, out: &mut Outbox) -> Result {
    let bid: Bid = event.json()?;
    if bid.bidder % 100 == 7 {
        out.forward()?;
    }
    Ok(())
}

export!(fn filter);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bids_of_one_class_pass() {
        let bid = |bidder: u64| TestEvent::text(format!(r#"{{"bidder":{bidder},"price":1}}"#));
        let run = Harness::function(filter).run([bid(1006), bid(1007), bid(1008)]);
        assert_eq!(run.only_output().text(), r#"{"bidder":1007,"price":1}"#);
    }
}
