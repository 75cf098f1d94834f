//! A verdict in words: a sentence with its numbers; and what cannot be seen.

use std::fmt::{self, Display, Formatter};

use super::foresight::Unseen;
use super::judged::Judged;
use super::rules::{CLIENTS, Ground, Verdict};
use crate::release::evidence::{Concern, Counted};

/// Evidence beyond this is shown as "more than" this.
const PLENTY: f64 = 1e6;

impl Display for Judged {
    fn fmt(&self, text: &mut Formatter<'_>) -> fmt::Result {
        let (pre, prod) = (&self.pre, &self.prod);
        if pre.units == 0 {
            return text.write_str("no request to pre has been counted yet");
        }
        let what = match self.concern {
            Concern::Failing => "failed",
            Concern::Slow => "were slow",
        };
        write!(text, "{} to pre {what}, ", BadOf(pre, "requests"))?;
        match prod.units {
            0 => text.write_str("and none to prod has been counted to compare with")?,
            _ => write!(text, "{} to prod", BadOf(prod, ""))?,
        }
        if pre.bad > 0 && prod.units > 0 {
            text.write_str(": ")?;
            match self.odds_ratio {
                Some(ratio) if (0.95..1.05).contains(&ratio) => {
                    text.write_str("the same odds, ")?
                }
                Some(ratio) => write!(text, "{} times the odds, ", Rounded(ratio))?,
                None => (),
            }
            let (evidence, bound) = (Amount(self.ln_worse), Amount(self.ln_bound));
            write!(text, "evidence {evidence} of {bound}")?;
        }
        write!(text, "; {}", Conclusion(self))
    }
}

impl Display for Unseen {
    fn fmt(&self, text: &mut Formatter<'_>) -> fmt::Result {
        let (pre, prod) = (Rounded(self.per_second.pre), Rounded(self.per_second.prod));
        write!(text, "at {pre} a second to pre and {prod} to prod, ")?;
        let usual = match self.concern {
            Concern::Failing => "fails",
            Concern::Slow => "is slow",
        };
        match self.below {
            Some(below) => write!(
                text,
                "where {} of prod {usual}, a pre of which less than {} {usual} would not be found within an hour",
                Percent(self.prod_rate),
                Percent(below)
            ),
            None => text.write_str("nothing that happens to pre would be found within an hour"),
        }
    }
}

/// What it means.
struct Conclusion<'a>(&'a Judged);

impl Display for Conclusion<'_> {
    fn fmt(&self, text: &mut Formatter<'_>) -> fmt::Result {
        let judged = self.0;
        match judged.verdict {
            Verdict::Incident if judged.is_unusual => {
                text.write_str("both fail far more than usual, so nothing is concluded")
            }
            Verdict::Incident => {
                text.write_str("both fail in plain sight, so nothing is concluded")
            }
            Verdict::GoodEnough => text.write_str("good enough to go on"),
            Verdict::Worse(Ground::Failing) => text.write_str("pre is worse"),
            Verdict::Worse(Ground::Slow) => text.write_str("pre is slower"),
            Verdict::Worse(Ground::Blunt) => {
                let clients = Clients(judged.pre_clients);
                write!(text, "pre is plainly worse, though it has only {clients}")
            }
            Verdict::Suspect if judged.ln_worse >= judged.ln_bound => self.what_is_missing(text),
            Verdict::Suspect if judged.is_alone => text.write_str(
                "so much fails that pre is likely worse, but too few are left on prod to tell",
            ),
            Verdict::Suspect | Verdict::Nothing => match (judged.known_in, judged.needed) {
                (Some(seconds), _) => {
                    write!(text, "at this rate known in about {}", Lasting(seconds))
                }
                (None, Some(needed)) => {
                    let needed = Grouped(needed.max(1));
                    write!(
                        text,
                        "good enough after about {needed} more that do not differ"
                    )
                }
                (None, None) => text.write_str("nothing can be said yet"),
            },
        }
    }
}

impl Conclusion<'_> {
    /// Why it is not found worse, though the evidence is there.
    fn what_is_missing(&self, text: &mut Formatter<'_>) -> fmt::Result {
        let judged = self.0;
        match judged.bad_clients {
            _ if judged.has_few_clients() => {
                let clients = Clients(judged.pre_clients);
                write!(text, "likely worse, but pre has only {clients}")
            }
            Some(clients) if clients < CLIENTS => {
                let clients = Clients(clients);
                write!(text, "likely worse, but that is what {clients} had")
            }
            _ => text.write_str("likely worse, but by too little to matter"),
        }
    }
}

/// "3 of 41 requests".
struct BadOf<'a>(&'a Counted, &'static str);

impl Display for BadOf<'_> {
    fn fmt(&self, text: &mut Formatter<'_>) -> fmt::Result {
        let Self(counted, noun) = self;
        write!(
            text,
            "{} of {}",
            Grouped(counted.bad),
            Grouped(counted.units)
        )?;
        match *noun {
            "" => Ok(()),
            noun => write!(text, " {noun}"),
        }
    }
}

/// "1 client", "2 clients".
struct Clients(u64);

impl Display for Clients {
    fn fmt(&self, text: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => text.write_str("1 client"),
            clients => write!(text, "{} clients", Grouped(clients)),
        }
    }
}

/// With commas: 3,900.
struct Grouped(u64);

impl Display for Grouped {
    fn fmt(&self, text: &mut Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                text.write_str(",")?;
            }
            write!(text, "{digit}")?;
        }
        Ok(())
    }
}

/// Evidence, of which the logarithm is known.
struct Amount(f64);

impl Display for Amount {
    fn fmt(&self, text: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            it if it > PLENTY.ln() => write!(text, "more than {}", Grouped(PLENTY as u64)),
            it => write!(text, "{}", Rounded(it.exp())),
        }
    }
}

/// Two digits of it.
struct Rounded(f64);

impl Display for Rounded {
    fn fmt(&self, text: &mut Formatter<'_>) -> fmt::Result {
        let number = self.0;
        if number >= 10.0 {
            let unit = 10.0_f64.powf(number.log10().floor() - 1.0);
            // As near as the first two digits tell.
            return write!(
                text,
                "{}",
                Grouped(((number / unit).round() * unit).round() as u64)
            );
        }
        let tenths = format!("{number:.1}");
        text.write_str(tenths.strip_suffix(".0").unwrap_or(&tenths))
    }
}

/// A share in percent, with two digits.
struct Percent(f64);

impl Display for Percent {
    fn fmt(&self, text: &mut Formatter<'_>) -> fmt::Result {
        let percent = self.0 * 100.0;
        let digits = match percent {
            it if it >= 10.0 || it == 0.0 => 0,
            it if it >= 1.0 => 1,
            _ => 2,
        };
        write!(text, "{percent:.digits$} %")
    }
}

/// A time, of seconds, minutes or hours.
struct Lasting(f64);

impl Display for Lasting {
    fn fmt(&self, text: &mut Formatter<'_>) -> fmt::Result {
        match self.0.ceil().max(1.0) {
            it if it < 120.0 => write!(text, "{it} s"),
            it if it < 7200.0 => write!(text, "{} min", (it / 60.0).round()),
            it => write!(text, "{} h", (it / 3600.0).round()),
        }
    }
}
