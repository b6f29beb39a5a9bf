//! Nexmark's q0: passes each event through. What is left is the cost of the way itself.

use millstream_plugin::prelude::*;

fn pass(_event: Event<'_>, out: &mut Outbox) -> Result {
    out.forward()
}

export!(fn pass);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_out_as_they_went_in() {
        let bid = TestEvent::text(r#"{"auction":1}"#).key("1");
        let run = Harness::function(pass).run([bid]);
        assert_eq!(run.only_output().text(), r#"{"auction":1}"#);
        assert_eq!(run.only_output().key(), Some(&b"1"[..]));
    }
}
