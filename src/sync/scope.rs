//! Which namespaces a sync copies.

use mongodb::bson::{Bson, Document, doc};

/// Why a filter is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScopeError(String);

/// Databases of the server's own.
pub const SYSTEM_DATABASES: [&str; 3] = ["admin", "config", "local"];

/// Patterns in a scope at most, as in the resource.
const MOST: usize = 256;

/// Characters of a pattern at most, as in the resource and in a namespace.
const LONGEST: usize = 255;

/// Bytes of a database name at most (<https://www.mongodb.com/docs/manual/reference/limits/>).
const LONGEST_DATABASE: usize = 63;

/// Include and exclude patterns; exclude wins. Empty include means everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    include: Vec<String>,
    exclude: Vec<String>,
    reserved: Vec<String>,
}

impl Scope {
    /// Patterns are `db.coll`, `db.*`, a bare `db` (which means `db.*`), with `*` and `?` as wildcards.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, ScopeError> {
        Ok(Self {
            include: normalize("include", include)?,
            exclude: normalize("exclude", exclude)?,
            reserved: Vec::new(),
        })
    }

    /// With a further database that is never in scope: one of the durable state.
    #[must_use]
    pub fn with_reserved(mut self, db: &str) -> Self {
        self.reserved.push(db.to_owned());
        self
    }

    /// Whether `db.coll` is copied. Never `admin`, `local`, `config`, nor a `system.` collection.
    pub fn contains(&self, db: &str, coll: &str) -> bool {
        if !self.may_contain_db(db) || coll.is_empty() || coll.starts_with("system.") {
            return false;
        }
        let matches = |pattern: &String| {
            split(pattern).is_some_and(|(db_part, coll_part)| glob(db_part, db) && glob(coll_part, coll))
        };
        (self.include.is_empty() || self.include.iter().any(matches)) && !self.exclude.iter().any(matches)
    }

    /// Whether any collection of `db` could be in scope: spares listing the others.
    pub fn may_contain_db(&self, db: &str) -> bool {
        if db.is_empty()
            || SYSTEM_DATABASES.contains(&db)
            || self.reserved.iter().any(|reserved| reserved == db)
        {
            return false;
        }
        let database = |pattern: &String| split(pattern).is_some_and(|(db_part, _)| glob(db_part, db));
        let whole =
            |pattern: &String| split(pattern).is_some_and(|(db_part, coll)| coll == "*" && glob(db_part, db));
        (self.include.is_empty() || self.include.iter().any(database)) && !self.exclude.iter().any(whole)
    }

    /// The patterns, as given but normalized, sorted and without doubles: for the durable state.
    pub fn include(&self) -> &[String] {
        &self.include
    }

    /// As [`include`](Self::include).
    pub fn exclude(&self) -> &[String] {
        &self.exclude
    }

    /// What the change stream's `$match` lets through: every event in scope and all DDL, which is judged here by the
    /// namespace it ends in. Perhaps more, never less.
    pub fn change_stream_match(&self) -> Document {
        let not_a_document = doc! {"operationType": {"$nin": ["insert", "update", "replace", "delete"]}};
        doc! {"$or": [not_a_document, self.namespace_clause()]}
    }

    fn namespace_clause(&self) -> Document {
        let literal = |patterns: &[String]| patterns.iter().all(|pattern| !pattern.contains(['*', '?']));
        if !self.include.is_empty() && literal(&self.include) {
            let names: Vec<Bson> = self
                .include
                .iter()
                .filter_map(|pattern| split(pattern))
                .filter(|(db, coll)| self.contains(db, coll))
                .map(|(db, coll)| doc! {"db": db, "coll": coll}.into())
                .collect();
            return doc! {"ns": {"$in": names}};
        }
        let mut never: Vec<Bson> = SYSTEM_DATABASES.iter().map(|&db| db.into()).collect();
        never.extend(self.reserved.iter().map(Bson::from));
        let mut clauses: Vec<Document> = vec![doc! {"ns.db": {"$nin": never}}];
        if !self.include.is_empty() {
            clauses.push(
                doc! {"$or": self.include.iter().filter_map(|pattern| clause(pattern)).collect::<Vec<_>>()},
            );
        }
        if !self.exclude.is_empty() {
            clauses.push(
                doc! {"$nor": self.exclude.iter().filter_map(|pattern| clause(pattern)).collect::<Vec<_>>()},
            );
        }
        doc! {"$and": clauses}
    }
}

fn clause(pattern: &str) -> Option<Document> {
    let (db, coll) = split(pattern)?;
    let part = |field: &str, glob: &str| match glob {
        "*" => Document::new(),
        glob if glob.contains(['*', '?']) => doc! {field: {"$regex": regex(glob), "$options": "s"}},
        literal => doc! {field: literal},
    };
    let mut clause = part("ns.db", db);
    clause.extend(part("ns.coll", coll));
    Some(clause)
}

/// The glob as an anchored regular expression. `\z`, since `$` would also match before a final newline.
fn regex(glob: &str) -> String {
    let mut regex = String::from("^");
    for character in glob.chars() {
        match character {
            '*' => regex.push_str(".*"),
            '?' => regex.push('.'),
            other => {
                if !other.is_alphanumeric() && other.is_ascii() {
                    regex.push('\\');
                }
                regex.push(other);
            }
        }
    }
    regex.push_str("\\z");
    regex
}

fn split(pattern: &str) -> Option<(&str, &str)> {
    pattern.split_once('.')
}

/// Whether `text` matches `pattern`, in linear space and without recursion.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t, mut star, mut mark) = (0, 0, None, 0);
    while t < text.len() {
        if p < pattern.len() && pattern[p] == '*' {
            star = Some(p);
            mark = t;
            p += 1;
        } else if p < pattern.len() && (pattern[p] == '?' || pattern[p] == text[t]) {
            p += 1;
            t += 1;
        } else if let Some(at) = star {
            p = at + 1;
            mark += 1;
            t = mark;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&rest| rest == '*')
}

fn normalize(field: &str, patterns: &[String]) -> Result<Vec<String>, ScopeError> {
    if patterns.len() > MOST {
        return Err(ScopeError(format!("{field} has {} entries; {MOST} are allowed", patterns.len())));
    }
    let mut normal = Vec::with_capacity(patterns.len());
    for pattern in patterns {
        normal.push(check(pattern).map_err(|why| ScopeError(format!("{field}: '{pattern}' {why}")))?);
    }
    normal.sort();
    normal.dedup();
    Ok(normal)
}

fn check(pattern: &str) -> Result<String, String> {
    if pattern.is_empty() {
        return Err("is empty; write db.collection, or db.* for a whole database".to_owned());
    }
    if pattern.chars().count() > LONGEST {
        return Err(format!("is longer than {LONGEST} characters"));
    }
    let (db, coll) = pattern.split_once('.').unwrap_or((pattern, "*"));
    if db.is_empty() {
        return Err("has no database before the dot; write *.collection for any database".to_owned());
    }
    if coll.is_empty() {
        return Err("has no collection after the dot; write db.* for a whole database".to_owned());
    }
    if let Some(bad) = db.chars().find(|c| matches!(c, '/' | '\\' | '"' | '$' | '\0') || c.is_whitespace()) {
        return Err(format!("has a character that no database name has: {}", bad.escape_default()));
    }
    if let Some(bad) = coll.chars().find(|c| matches!(c, '$' | '\0')) {
        return Err(format!("has a character that no collection name has: {}", bad.escape_default()));
    }
    if db.replace('*', "").len() > LONGEST_DATABASE {
        return Err(format!("names a database longer than {LONGEST_DATABASE} bytes"));
    }
    if SYSTEM_DATABASES.contains(&db) {
        return Err(format!("names the database {db}, which belongs to the server and is never copied"));
    }
    if coll.starts_with("system.") {
        return Err("names a system collection, which is never copied by itself".to_owned());
    }
    Ok(format!("{db}.{coll}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scope(include: &[&str], exclude: &[&str]) -> Scope {
        let own = |list: &[&str]| list.iter().map(|&s| s.to_owned()).collect::<Vec<_>>();
        Scope::new(&own(include), &own(exclude)).unwrap()
    }

    #[test]
    fn patterns_mean_what_they_say() {
        let shop = scope(&["shop.*", "crm.cust?mers", "logs"], &["shop.tmp_*"]);
        for (db, coll, expected) in [
            ("shop", "orders", true),
            ("shop", "tmp_1", false),
            ("shop", "a.b.c", true),
            ("shop2", "orders", false),
            ("crm", "customers", true),
            ("crm", "custmers", false),
            ("logs", "any", true),
            ("shop", "system.views", false),
        ] {
            assert_eq!(shop.contains(db, coll), expected, "{db}.{coll}");
        }
    }

    #[test]
    fn the_servers_databases_and_the_reserved_one_are_never_in_scope() {
        let all = Scope::default().with_reserved("meta");
        for db in ["admin", "local", "config", "meta"] {
            assert!(!all.contains(db, "c") && !all.may_contain_db(db), "{db}");
        }
        assert!(all.contains("other", "c"));
    }

    #[test]
    fn bad_patterns_are_refused_with_a_reason() {
        for (bad, word) in [
            ("", "empty"),
            (".c", "no database"),
            ("db.", "no collection"),
            ("a b.c", "character"),
            ("a.$x", "character"),
            ("admin.*", "server"),
            ("a.system.views", "system"),
        ] {
            let error = Scope::new(&[bad.to_owned()], &[]).unwrap_err().to_string();
            assert!(error.contains(word), "{bad}: {error}");
        }
        assert!(Scope::new(&vec!["a.b".to_owned(); 257], &[]).is_err());
        assert!(Scope::new(&["a".repeat(256)], &[]).is_err());
    }

    /// What the server does with the clause, for the operators that we use.
    fn accepts(clause: &Document, db: &str, coll: &str) -> bool {
        clause.iter().all(|(field, condition)| {
            let list = || {
                condition
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|inner| accepts(inner.as_document().unwrap(), db, coll))
            };
            let value = match field.as_str() {
                "$or" => return list().any(|yes| yes),
                "$nor" => return !list().any(|yes| yes),
                "$and" => return list().all(|yes| yes),
                "ns.db" => db,
                "ns.coll" => coll,
                "ns" => {
                    let names = condition.as_document().unwrap().get_array("$in").unwrap();
                    return names.contains(&doc! {"db": db, "coll": coll}.into());
                }
                other => panic!("{other}"),
            };
            match condition {
                Bson::String(literal) => literal == value,
                Bson::Document(operator) => match operator.get_str("$regex") {
                    Ok(regex) => unregex(regex, value),
                    Err(_) => !operator.get_array("$nin").unwrap().contains(&value.into()),
                },
                _ => panic!("{condition}"),
            }
        })
    }

    /// Evaluates the regular expressions that `regex` makes, by turning them back: `.*`, `.` and escaped literals.
    fn unregex(regex: &str, value: &str) -> bool {
        fn run(pattern: &[char], text: &[char]) -> bool {
            match pattern {
                [] => text.is_empty(),
                ['.', '*', rest @ ..] => (0..=text.len()).any(|n| run(rest, &text[n..])),
                ['.', rest @ ..] => !text.is_empty() && run(rest, &text[1..]),
                ['\\', literal, rest @ ..] | [literal, rest @ ..] => {
                    text.first() == Some(literal) && run(rest, &text[1..])
                }
            }
        }
        let body: Vec<char> = regex.strip_prefix('^').unwrap().strip_suffix("\\z").unwrap().chars().collect();
        run(&body, &value.chars().collect::<Vec<_>>())
    }

    fn naive(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|n| naive(rest, &text[n..])),
            Some(('?', rest)) => !text.is_empty() && naive(rest, &text[1..]),
            Some((c, rest)) => text.first() == Some(c) && naive(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn globs_agree_with_the_definition(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
            let chars = |s: &str| s.chars().collect::<Vec<_>>();
            prop_assert_eq!(glob(&pattern, &text), naive(&chars(&pattern), &chars(&text)));
        }

        #[test]
        fn exclude_wins(db in "[ab]{1,3}", coll in "[ab.]{1,4}") {
            let coll = coll.trim_matches('.');
            prop_assume!(!coll.is_empty());
            let name = format!("{db}.{coll}");
            prop_assert!(scope(&[&name], &[]).contains(&db, coll));
            prop_assert!(!scope(&[&name], &[&name]).contains(&db, coll));
        }

        #[test]
        fn the_stream_lets_through_what_is_in_scope(
            include in proptest::collection::vec("[ab?*]{1,2}\\.[ab?*]{1,3}", 0..4),
            exclude in proptest::collection::vec("[ab?*]{1,2}\\.[ab?*]{1,3}", 0..3),
            db in "[ab]{1,2}", coll in "[ab]{1,3}",
        ) {
            let scope = Scope::new(&include, &exclude).unwrap().with_reserved("b");
            let clause = scope.namespace_clause();
            if scope.contains(&db, &coll) {
                prop_assert!(accepts(&clause, &db, &coll), "{:?}", clause);
                prop_assert!(scope.may_contain_db(&db));
            }
        }
    }
}
