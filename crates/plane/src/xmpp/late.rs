//! When a message came for a session that had no connection (XEP-0203): its client, once it is back, would show it as one
//! of that moment otherwise.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use moim_wire::xml::{ns, Element};

use super::parcel::Parcel;

/// The parcel, its message with the time at which it came for `full`, in the name of the account's domain. What says since
/// when it is late already says so still.
pub fn stamped(parcel: Parcel, full: &str, now: SystemTime) -> Parcel {
    let element = &parcel.element;
    if element.name() != "message" || element.elements().any(|child| child.is("delay", ns::DELAY)) {
        return parcel;
    }
    let bare = full.split('/').next().unwrap_or_default();
    let domain = bare.rsplit('@').next().unwrap_or_default();
    let stamp = date_time(now.duration_since(UNIX_EPOCH).unwrap_or_default());
    let delay = Element::build("delay", ns::DELAY, &[("from", domain), ("stamp", &stamp)], Vec::new());
    let mut message = Element::clone(element);
    message.push(delay.into());
    Parcel {
        element: Arc::new(message),
        ..parcel
    }
}

/// A time since 1970 as XEP-0082 has it, in UTC with milliseconds.
fn date_time(since: Duration) -> String {
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let (seconds, milliseconds) = (seconds % 60, since.subsec_millis());
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{milliseconds:03}Z")
}

/// Year, month and day of a day since 1970-01-01, in the Gregorian calendar.
fn date(days: u64) -> (u64, u64, u64) {
    // Years begin in March here, so that the leap day is the last one of a year; 400 years have 146,097 days.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let of_month = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 {
        (year, month + 3)
    } else {
        (year + 1, month - 9)
    };
    (year + era * 400, month, of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 7)
    }

    fn message(children: &[(&'static str, &'static str)]) -> Parcel {
        let mut element = Element::build("message", ns::CLIENT, &[("id", "1")], Vec::new());
        for (name, ns) in children {
            element.push(Element::build(name, ns, &[], Vec::new()).into());
        }
        Parcel::own(element.into())
    }

    #[test]
    fn a_message_tells_when_it_came() {
        let parcel = stamped(message(&[("body", ns::CLIENT)]), "a@x.test/b@c/d", at(951_782_400));
        let delay = parcel.element.elements().last().unwrap();
        assert!(delay.is("delay", ns::DELAY) && parcel.own);
        assert_eq!(delay.attr("from"), Some("x.test"));
        assert_eq!(delay.attr("stamp"), Some("2000-02-29T00:00:00.007Z"));
    }

    #[test]
    fn what_says_so_already_and_what_is_no_message_stay_as_they_are() {
        let late = stamped(message(&[("delay", ns::DELAY)]), "a@x.test/r", at(0));
        assert_eq!(late.element.elements().count(), 1);
        let presence = Parcel::sole(Element::build("presence", ns::CLIENT, &[], Vec::new()).into());
        assert_eq!(stamped(presence, "a@x.test/r", at(0)).element.elements().count(), 0);
    }

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.007Z"),
            (951_868_799, "2000-02-29T23:59:59.007Z"),
            (951_868_800, "2000-03-01T00:00:00.007Z"),
            (1_735_689_599, "2024-12-31T23:59:59.007Z"),
            (1_795_359_781, "2026-11-22T15:03:01.007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.007Z"),
        ] {
            assert_eq!(date_time(at(seconds).duration_since(UNIX_EPOCH).unwrap()), text);
        }
    }
}
