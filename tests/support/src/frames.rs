//! Kafka's frames, as far as a proxy has to know them: a length, and the head of what follows.

use std::io::{self, Read};

/// The requests that tests look for, by their number in the protocol.
pub mod api {
    pub const PRODUCE: i16 = 0;
    pub const OFFSET_COMMIT: i16 = 8;
    pub const JOIN_GROUP: i16 = 11;
    pub const SYNC_GROUP: i16 = 14;
    pub const END_TXN: i16 = 26;
    pub const TXN_OFFSET_COMMIT: i16 = 28;
}

/// The longest frame that is taken: far more than a broker accepts or answers.
const LONGEST: usize = 128 << 20;

/// One request or answer, its length in front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame(Vec<u8>);

impl Frame {
    /// Reads the next one; `None` at an end between two.
    ///
    /// # Errors
    /// The connection fails or ends inside a frame, or a length is impossible.
    pub fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut bytes = vec![0; 4];
        loop {
            match from.read(&mut bytes[..1]) {
                Ok(0) => return Ok(None),
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        from.read_exact(&mut bytes[1..])?;
        let length = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
        if length > LONGEST {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a frame of an impossible length",
            ));
        }
        bytes.resize(4 + length, 0);
        from.read_exact(&mut bytes[4..])?;
        Ok(Some(Self(bytes)))
    }

    /// All of it, the length too.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Of a request: what is asked for, and the number that the answer will carry.
    pub fn request(&self) -> Option<(i16, i32)> {
        let head = self.0.get(4..12)?;
        Some((
            i16::from_be_bytes([head[0], head[1]]),
            i32::from_be_bytes([head[4], head[5], head[6], head[7]]),
        ))
    }

    /// Of an answer: the number of its request.
    pub fn answers(&self) -> Option<i32> {
        let head = self.0.get(4..8)?;
        Some(i32::from_be_bytes([head[0], head[1], head[2], head[3]]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_tells_what_it_asks_for() {
        let bytes = [0, 0, 0, 8, 0, 26, 0, 5, 0, 0, 1, 2, 99];
        let frame = Frame::read(&mut &bytes[..]).unwrap().unwrap();
        assert_eq!(frame.request(), Some((api::END_TXN, 258)));
        assert_eq!(frame.bytes(), &bytes[..12]);
    }

    #[test]
    fn an_end_is_told_from_a_torn_frame() {
        assert_eq!(Frame::read(&mut &[][..]).unwrap(), None);
        assert!(Frame::read(&mut &[0, 0, 0, 9, 1][..]).is_err());
        assert!(Frame::read(&mut &[0xff; 8][..]).is_err());
    }
}
