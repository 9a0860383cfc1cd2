//! Todos that look like real ones.

const TASKS: [&str; 24] = [
    "Renew",
    "Review",
    "Call about",
    "Write",
    "Order",
    "Plan",
    "Repair",
    "Compare",
    "Pay for",
    "Clean up",
    "Prepare",
    "Send",
    "Book",
    "Update",
    "Sort out",
    "Test",
    "Translate",
    "Cancel",
    "Photograph",
    "Return",
    "Measure",
    "Rehearse",
    "Archive",
    "Finish",
];
const THINGS: [&str; 32] = [
    "the passport",
    "the quarterly budget",
    "train tickets to Zürich",
    "the garden fence",
    "Zoë's birthday cake",
    "the release notes",
    "the backup of the file server",
    "new running shoes",
    "the contract with the landlord",
    "the onboarding guide",
    "library books",
    "the café's new menu",
    "the winter tyres",
    "a query that takes 9 seconds",
    "the school play",
    "slides for Monday",
    "the kitchen tap",
    "vaccination records",
    "the \"read me first\" page",
    "the tax return",
    "two job interviews",
    "seeds for the balcony 🌱",
    "the piano",
    "the fire drill",
    "photos from the hike",
    "the alarm that nobody answers",
    "a present for Grandma",
    "the bicycle insurance",
    "the translation of chapter 7",
    "the neighbours' spare key",
    "the electricity meter",
    "the team's retrospective",
];
const WHENS: [&str; 12] = [
    "",
    "",
    "",
    "",
    " before Friday",
    " this week",
    " by the end of the month",
    " (again)",
    " with Ana",
    " after lunch",
    " at the weekend",
    " first thing tomorrow",
];
const REASONS: [&str; 16] = [
    "The old one runs out soon and the office answers slowly.",
    "Everybody asks for it, and nobody has begun.",
    "Two people said they would, so probably neither did.",
    "Last time it took a whole afternoon.",
    "It was promised in the meeting on Tuesday.",
    "Cheaper when done before the first of the month.",
    "The first attempt failed because a form was missing.",
    "Needs a quiet hour and a large table.",
    "Mateo knows the details and is back on Wednesday.",
    "There is a list of what is needed in the blue folder.",
    "Half of it is done; the rest is the boring part.",
    "Ask for the discount, they give it to everyone who asks.",
    "Only possible while the shop is open, until 18:30.",
    "It blocks three other things on this list.",
    "The reminder came by post, reference 2291/B.",
    "Low priority, but it gets worse the longer it waits.",
];
const DETAILS: [&str; 12] = [
    "Take the measurements along.",
    "Write down who was asked and when.",
    "Phone number on the fridge.",
    "Then tell Priya that it is done.",
    "Budget: at most 120 €.",
    "See the notes from last year.",
    "Allow two days for the answer.",
    "Check twice, send once.",
    "The key is under \"K\".",
    "Do not forget the receipt.",
    "If it rains, the week after.",
    "Keep a copy.",
];

/// One made-up todo; the same `variety` and number make the same one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedTodo {
    /// A few words.
    pub title: String,
    /// One or two sentences, about 60 to 120 characters in all.
    pub description: String,
    /// Whether it is done; about a third are.
    pub completed: bool,
}

impl SeedTodo {
    /// The todo `number` of the series `variety`.
    pub fn new(variety: u64, number: u64) -> SeedTodo {
        let mut dice = Dice::new(variety, number);
        let title = [dice.pick(&TASKS), " ", dice.pick(&THINGS), dice.pick(&WHENS)].concat();
        let description = [dice.pick(&REASONS), " ", dice.pick(&DETAILS)].concat();
        SeedTodo { title, description, completed: dice.below(3) == 0 }
    }
}

/// A small random number generator (SplitMix64), so that a series is the same on every machine and any todo of it can
/// be made without the ones before.
struct Dice(u64);

impl Dice {
    fn new(variety: u64, number: u64) -> Dice {
        let mut mixer = Dice(variety);
        Dice(mixer.next() ^ number.wrapping_mul(0xd134_2543_de82_ef95))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`. The remainder favours some numbers by less than bound / 2^64.
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn pick(&mut self, texts: &[&'static str]) -> &'static str {
        texts[self.below(texts.len())]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::todo::{JsonParser, NewTodo, TextLimits, write_json_string};

    #[test]
    fn the_same_numbers_make_the_same_todo_and_others_differ() {
        assert_eq!(SeedTodo::new(1, 7), SeedTodo::new(1, 7));
        assert_ne!(SeedTodo::new(1, 7), SeedTodo::new(2, 7));
        let distinct: HashSet<_> = (0..10_000).map(|n| SeedTodo::new(1, n)).map(|t| t.title + &t.description).collect();
        assert!(distinct.len() > 9_900, "only {} of 10,000 differ", distinct.len());
    }

    #[test]
    fn lengths_and_shares_are_as_described() {
        let todos: Vec<SeedTodo> = (0..10_000).map(|number| SeedTodo::new(1, number)).collect();
        let completed = todos.iter().filter(|todo| todo.completed).count();
        assert!((3_000..3_700).contains(&completed), "{completed} of 10,000 are completed");
        let lengths: Vec<usize> = todos.iter().map(|todo| todo.description.chars().count()).collect();
        assert!(lengths.iter().all(|length| (45..=120).contains(length)));
        let mean = lengths.iter().sum::<usize>() / lengths.len();
        assert!((60..=90).contains(&mean), "descriptions have {mean} characters on average");
    }

    #[test]
    fn the_api_takes_them() {
        for number in 0..2_000 {
            let todo = SeedTodo::new(1, number);
            let mut body = b"{\"title\":".to_vec();
            write_json_string(&mut body, &todo.title);
            body.extend_from_slice(b",\"description\":");
            write_json_string(&mut body, &todo.description);
            body.push(b'}');
            let mut parser = JsonParser::default();
            let read = NewTodo::from_json(&mut body, TextLimits::default(), &mut parser).unwrap();
            assert_eq!((read.title, read.description), (&*todo.title, &*todo.description));
        }
    }
}
