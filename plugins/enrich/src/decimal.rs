//! Decimal numbers as JSON writes them, kept exact.

/// Most digits before or behind the point, so that no product leaves 128 bits.
pub const MAX_DIGITS: u32 = 18;

/// `digits` × 10^-`scale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal {
    digits: i64,
    scale: u32,
}

/// Why a product is no whole number of minor units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotExact {
    /// Something remains behind the last minor digit.
    Fraction,
    /// It does not fit 64 bits.
    TooLarge,
}

impl Decimal {
    /// Reads a JSON number, exponent included. `None` for anything else, and for more than 18
    /// significant digits or digits behind the point.
    pub fn parse(text: &str) -> Option<Self> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let (negative, whole) = match whole.strip_prefix('-') {
            Some(whole) => (true, whole),
            None => (false, whole),
        };
        if whole.is_empty() {
            return None;
        }
        let fraction = fraction.trim_end_matches('0');
        let mut digits = 0_i64;
        for digit in whole.bytes().chain(fraction.bytes()) {
            if !digit.is_ascii_digit() {
                return None;
            }
            digits = digits
                .checked_mul(10)?
                .checked_add(i64::from(digit - b'0'))?;
        }
        let mut scale = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
        if scale < 0 {
            digits = digits.checked_mul(10_i64.checked_pow(scale.unsigned_abs())?)?;
            scale = 0;
        }
        let scale = scale.unsigned_abs();
        (scale <= MAX_DIGITS).then_some(Self {
            digits: if negative { -digits } else { digits },
            scale,
        })
    }

    /// The product with `count` in units of 10^-`minor_digits` (up to [`MAX_DIGITS`]).
    pub fn times(self, count: i64, minor_digits: u32) -> Result<i64, NotExact> {
        let product = i128::from(self.digits) * i128::from(count);
        let whole = match minor_digits.checked_sub(self.scale) {
            Some(missing) => product
                .checked_mul(10_i128.pow(missing.min(MAX_DIGITS)))
                .ok_or(NotExact::TooLarge)?,
            None => {
                let unit = 10_i128.pow(self.scale - minor_digits);
                if product % unit != 0 {
                    return Err(NotExact::Fraction);
                }
                product / unit
            }
        };
        i64::try_from(whole).map_err(|_| NotExact::TooLarge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(text: &str, count: i64) -> Result<i64, NotExact> {
        Decimal::parse(text).unwrap().times(count, 2)
    }

    #[test]
    fn products_are_exact() {
        assert_eq!(times("2.55", 6), Ok(1530));
        assert_eq!(times("0.29", 100), Ok(2900));
        assert_eq!(times("7", -3), Ok(-2100));
        assert_eq!(times("0.0", -10), Ok(0));
        assert_eq!(times("-11062.06", 1), Ok(-1_106_206));
        assert_eq!(times("2.5e-1", 4), Ok(100));
        assert_eq!(times("1.5E+3", 1), Ok(150_000));
        assert_eq!(times("2.5500000000000000000000", 6), Ok(1530));
    }

    /// Rounding here would make up money; the whole must come out even.
    #[test]
    fn what_remains_is_refused_and_what_adds_up_is_not() {
        assert_eq!(times("0.001", 1), Err(NotExact::Fraction));
        assert_eq!(times("0.001", 10), Ok(1));
        assert_eq!(times("9e16", i64::MAX), Err(NotExact::TooLarge));
        assert_eq!(times("9000000000000000", i64::MAX), Err(NotExact::TooLarge));
    }

    #[test]
    fn only_numbers_are_numbers() {
        for text in [
            "", "-", ".5", "1,5", "\"1\"", "null", "1e", "1e99", "1e-99", "0x1", "+1",
        ] {
            assert_eq!(Decimal::parse(text), None, "{text}");
        }
        let long = "0.".to_owned() + &"1".repeat(40);
        assert_eq!(Decimal::parse(&long), None);
    }
}
