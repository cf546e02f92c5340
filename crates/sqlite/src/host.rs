//! What SQLite's C library asks of the browser: the offset of local time, and what the numbers of
//! `random()` begin with. All the rest comes through our VFS, so the functions of sqlite-wasm-rs
//! for it would only be downloaded.

use js_sys::Date;
use js_sys::wasm_bindgen::prelude::wasm_bindgen;
use sqlite_wasm_rs::host::{Error, LocalTime, OK};

#[wasm_bindgen(wasm_bindgen = js_sys::wasm_bindgen)]
extern "C" {
    #[wasm_bindgen(js_namespace = crypto, js_name = getRandomValues)]
    fn fill_with_chance(bytes: &mut [u8]);
}

const DAY: i64 = 86_400;

/// # Safety
///
/// `out` can be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn rust_sqlite_wasm_host_localtime(seconds: i64, out: *mut LocalTime) -> i32 {
    let offset_minutes = Date::new(&(seconds as f64 * 1000.0).into()).get_timezone_offset();
    if offset_minutes.is_nan() {
        return Error::InvalidTime as i32;
    }
    let offset = (offset_minutes * -60.0) as i64;
    // SAFETY: by contract of this function.
    unsafe { out.write(local_time(seconds + offset, offset)) };
    OK
}

/// The fields of the calendar that SQLite looks at, of seconds since the epoch in local time.
fn local_time(seconds: i64, offset: i64) -> LocalTime {
    let (days, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    // Days since 1 March of year 0, in eras of 400 years; a leap day is the last of its year.
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months_from_march = (5 * day_of_year + 2) / 153;
    let month = (months_from_march + 2) % 12 + 1;
    LocalTime {
        year: (year_of_era + era * 400 + i64::from(month <= 2)) as i32,
        month: month as i32,
        day: (day_of_year - (153 * months_from_march + 2) / 5 + 1) as i32,
        hour: (second / 3600) as i32,
        minute: (second / 60 % 60) as i32,
        second: (second % 60) as i32,
        is_dst: -1,
        utc_offset_seconds: offset as i32,
        ..LocalTime::default()
    }
}

#[unsafe(no_mangle)]
extern "C" fn rust_sqlite_wasm_host_sleep(_seconds: u64, _nanoseconds: u32) {}

/// SQLite asks once, for what it draws all its numbers from: without an answer every worker on
/// every device would draw the same.
///
/// # Safety
///
/// `out` has `size` bytes that can be written, all of which have a value.
#[unsafe(no_mangle)]
unsafe extern "C" fn rust_sqlite_wasm_host_random(out: *mut u8, size: usize) -> usize {
    // SAFETY: by contract of this function.
    fill_with_chance(unsafe { std::slice::from_raw_parts_mut(out, size) });
    size
}

#[unsafe(no_mangle)]
extern "C" fn rust_sqlite_wasm_host_epoch_timestamp_in_ms(_out: *mut i64) -> i32 {
    Error::Unsupported as i32
}

#[unsafe(no_mangle)]
extern "C" fn rust_sqlite_wasm_host_fill_entropy(_out: *mut u8, _size: usize) -> i32 {
    Error::Unsupported as i32
}
