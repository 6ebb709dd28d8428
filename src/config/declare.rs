//! How the configuration language is declared.
//!
//! Each part of the language is declared once, with [`object!`], [`choice!`], [`words!`] or [`text!`]. A declaration is
//! the type that the rest of the program uses, the reader that reports every mistake at its place, and, in the command
//! only, the entry of the JSON Schema and of `docs/configuration.md`. The doc comments are the reference's texts: the
//! module has none of them.

use std::marker::PhantomData;

use super::document::Node;
use super::read::{At, Fields};

/// How a value is written.
pub(crate) trait Notation {
    /// What it is read into.
    type Value;
    /// A value as somebody would write it, for messages about a list's entries. A field brings its own.
    const EXAMPLE: &'static str;
    /// What may be written, for the schema and the reference.
    #[cfg(feature = "cli")]
    const KIND: Kind;
    /// Reads a value. What is wrong with it is reported, and reading goes on.
    fn read(at: At<'_>) -> Option<Self::Value>;
}

/// Fields that stand in one object: all of an object's, or some that several objects share.
pub(crate) trait Part: Sized {
    /// The names, in the order of the declaration.
    const NAMES: &'static [Name];
    /// How the fields go together.
    const RULE: Rule;
    /// Title, texts and kinds, for the schema and the reference.
    #[cfg(feature = "cli")]
    const OBJECT: Object;
    /// Reads the fields. A field with a mistake has its default after that, so that other checks can go on.
    fn read_fields(fields: &Fields<'_>) -> Option<Self>;
    /// Reports what is wrong between the fields.
    fn check(&self, _: &Fields<'_>) {}
}

/// A name, or those of another part whose fields stand among these.
pub(crate) enum Name {
    Field(&'static str),
    Shared(&'static [Name]),
}

impl Name {
    pub(crate) fn any(names: &[Name], holds: &dyn Fn(&str) -> bool) -> bool {
        names.iter().any(|name| match name {
            Name::Field(name) => holds(name),
            Name::Shared(names) => Name::any(names, holds),
        })
    }

    pub(crate) fn list(names: &[Name], list: &mut Vec<&'static str>) {
        for name in names {
            match name {
                Name::Field(name) => list.push(name),
                Name::Shared(names) => Name::list(names, list),
            }
        }
    }
}

/// How the fields of an object go together.
pub(crate) enum Rule {
    Any,
    AtLeastOne {
        message: &'static str,
        help: &'static str,
    },
    AtLeastOneOf {
        names: &'static [Name],
        message: &'static str,
        help: &'static str,
    },
    ExactlyOneOf(&'static [&'static str]),
}

/// What may be written somewhere.
#[cfg(feature = "cli")]
pub(crate) enum Kind {
    Boolean,
    Whole(u32, u32),
    Text {
        what: &'static str,
        /// A regular expression (ECMA-262) that a text matches exactly if the reader takes it.
        pattern: fn() -> String,
    },
    Words(&'static [&'static str]),
    Object(&'static Object),
    /// A list, perhaps empty.
    List(&'static Kind),
    /// A list, perhaps empty, with no entry twice.
    Distinct(&'static Kind),
    /// A list with at least one entry and none twice.
    Set(&'static Kind),
    Either(&'static [Kind]),
}

/// An object of the language, described.
#[cfg(feature = "cli")]
pub(crate) struct Object {
    /// Its name in the schema.
    pub(crate) name: &'static str,
    /// Its heading in the reference.
    pub(crate) title: &'static str,
    pub(crate) intro: &'static str,
    pub(crate) rule: Rule,
    pub(crate) fields: &'static [Described],
}

/// A field, described, or another part whose fields stand among these.
#[cfg(feature = "cli")]
pub(crate) enum Described {
    Field {
        name: &'static str,
        kind: Kind,
        /// What holds where the field is left out; nothing if it has to be there.
        default: Option<&'static str>,
        meaning: &'static str,
        example: &'static str,
    },
    Shared(&'static Object),
}

/// How the value that was read, if any, is kept.
pub(crate) trait Kept<V> {
    fn kept(read: Option<V>) -> Self;
}

impl<V> Kept<V> for Option<V> {
    fn kept(read: Option<V>) -> Self {
        read
    }
}

impl<V: Default> Kept<V> for V {
    fn kept(read: Option<V>) -> Self {
        read.unwrap_or_default()
    }
}

/// A list, perhaps empty.
pub(crate) struct List<N>(PhantomData<N>);

impl<N: Notation> Notation for List<N> {
    type Value = Vec<N::Value>;
    const EXAMPLE: &'static str = "[]";
    #[cfg(feature = "cli")]
    const KIND: Kind = Kind::List(&N::KIND);

    fn read(at: At<'_>) -> Option<Self::Value> {
        at.list::<N>()
    }
}

/// A list, perhaps empty, with no entry twice.
pub(crate) struct Distinct<N>(PhantomData<N>);

impl<N: Notation<Value: std::hash::Hash>> Notation for Distinct<N> {
    type Value = Vec<N::Value>;
    const EXAMPLE: &'static str = "[]";
    #[cfg(feature = "cli")]
    const KIND: Kind = Kind::Distinct(&N::KIND);

    fn read(at: At<'_>) -> Option<Self::Value> {
        at.distinct::<N>()
    }
}

/// A list with at least one entry and none twice.
pub(crate) struct Set<N>(PhantomData<N>);

impl<N: Notation<Value: std::hash::Hash>> Notation for Set<N> {
    type Value = Vec<N::Value>;
    const EXAMPLE: &'static str = "[]";
    #[cfg(feature = "cli")]
    const KIND: Kind = Kind::Set(&N::KIND);

    fn read(at: At<'_>) -> Option<Self::Value> {
        at.set::<N>()
    }
}

/// One value, or a set of them.
pub(crate) struct OneOrSet<N>(PhantomData<N>);

impl<N: Notation<Value: std::hash::Hash>> Notation for OneOrSet<N> {
    type Value = Vec<N::Value>;
    const EXAMPLE: &'static str = N::EXAMPLE;
    #[cfg(feature = "cli")]
    const KIND: Kind = Kind::Either(&[N::KIND, Kind::Set(&N::KIND)]);

    fn read(at: At<'_>) -> Option<Self::Value> {
        match at.node {
            Node::List(_) => at.set::<N>(),
            _ => N::read(at).map(|value| vec![value]),
        }
    }
}

/// `true` or `false`.
pub(crate) enum Boolean {}

impl Notation for Boolean {
    type Value = bool;
    const EXAMPLE: &'static str = "true";
    #[cfg(feature = "cli")]
    const KIND: Kind = Kind::Boolean;

    fn read(at: At<'_>) -> Option<bool> {
        at.boolean()
    }
}

/// An object with fields of its own: its type, its reader and its description.
macro_rules! object {
    (
        $(#[doc = $intro:literal])+
        $vis:vis struct $Type:ident = $name:literal, $title:literal, $example:literal $(, $rule:expr)?;
        $(derive $derived:ident;)?
        $(check $check:path;)?
        $(
            $(#[doc = $meaning:literal])+
            $field:ident: $type:ty = $how:ident $($json:literal: $notation:ty, $($said:literal),+)?;
        )+
    ) => {
        $(#[doc = $intro])+
        #[derive(Clone, Debug, PartialEq, Eq, Hash $(, $derived)?)]
        $vis struct $Type {
            $($(#[doc = $meaning])+ $vis $field: $type,)+
        }

        impl $crate::config::declare::Part for $Type {
            const NAMES: &'static [$crate::config::declare::Name] =
                &[$($crate::config::declare::name!($type $(, $json)?)),+];
            const RULE: $crate::config::declare::Rule =
                $crate::config::declare::first!($($rule,)? $crate::config::declare::Rule::Any);
            #[cfg(feature = "cli")]
            const OBJECT: $crate::config::declare::Object = $crate::config::declare::Object {
                name: $name,
                title: $title,
                intro: concat!($($intro),+),
                rule: Self::RULE,
                fields: &[$($crate::config::declare::described!(
                    $how $type, concat!($($meaning),+) $(, $json, $notation, $($said),+)?
                )),+],
            };

            fn read_fields(fields: &$crate::config::read::Fields<'_>) -> Option<Self> {
                Some(Self {
                    $($field: $crate::config::declare::read_field!(
                        fields, $how $type $(, $json, $notation, $($said),+)?
                    ),)+
                })
            }

            $(
                fn check(&self, fields: &$crate::config::read::Fields<'_>) {
                    $check(self, fields);
                }
            )?
        }

        $crate::config::declare::notation_of_object!($Type, $example);
    };
}

/// An object with exactly one of some fields: an enum.
macro_rules! choice {
    (
        $(#[doc = $intro:literal])+
        pub enum $Type:ident = $name:literal, $title:literal, $example:literal;
        $(
            $(#[doc = $meaning:literal])+
            $Variant:ident($type:ty) = $json:literal: $notation:ty, $said:literal;
        )+
    ) => {
        $(#[doc = $intro])+
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum $Type {
            $($(#[doc = $meaning])+ $Variant($type),)+
        }

        impl $crate::config::declare::Part for $Type {
            const NAMES: &'static [$crate::config::declare::Name] =
                &[$($crate::config::declare::Name::Field($json)),+];
            const RULE: $crate::config::declare::Rule =
                $crate::config::declare::Rule::ExactlyOneOf(&[$($json),+]);
            #[cfg(feature = "cli")]
            const OBJECT: $crate::config::declare::Object = $crate::config::declare::Object {
                name: $name,
                title: $title,
                intro: concat!($($intro),+),
                rule: Self::RULE,
                fields: &[$($crate::config::declare::described!(
                    optional $type, concat!($($meaning),+), $json, $notation, "–", $said
                )),+],
            };

            fn read_fields(fields: &$crate::config::read::Fields<'_>) -> Option<Self> {
                let mut read = None;
                $(
                    let value = fields.optional::<$notation>($json, $said);
                    read = read.or(value.map(Self::$Variant));
                )+
                read
            }
        }

        $crate::config::declare::notation_of_object!($Type, $example);
    };
}

macro_rules! notation_of_object {
    ($Type:ident, $example:literal) => {
        impl $crate::config::declare::Notation for $Type {
            type Value = Self;
            const EXAMPLE: &'static str = $example;
            #[cfg(feature = "cli")]
            const KIND: $crate::config::declare::Kind = $crate::config::declare::Kind::Object(
                &<Self as $crate::config::declare::Part>::OBJECT,
            );

            fn read(at: $crate::config::read::At<'_>) -> Option<Self> {
                at.object::<Self>()
            }
        }
    };
}

macro_rules! name {
    ($type:ty, $json:literal) => {
        $crate::config::declare::Name::Field($json)
    };
    ($type:ty) => {
        $crate::config::declare::Name::Shared(<$type as $crate::config::declare::Part>::NAMES)
    };
}

macro_rules! first {
    ($first:expr $(, $other:expr)*) => {
        $first
    };
}

macro_rules! read_field {
    ($fields:ident, required $type:ty, $json:literal, $notation:ty, $example:literal) => {
        $fields
            .required::<$notation>($json, $example)
            .unwrap_or_default()
    };
    ($fields:ident, optional $type:ty, $json:literal, $notation:ty, $default:literal, $example:literal) => {
        <$type as $crate::config::declare::Kept<_>>::kept(
            $fields.optional::<$notation>($json, $example),
        )
    };
    ($fields:ident, shared $type:ty) => {
        <$type as $crate::config::declare::Part>::read_fields($fields)?
    };
}

#[cfg_attr(not(feature = "cli"), allow(unused_macros))]
macro_rules! described {
    (required $type:ty, $meaning:expr, $json:literal, $notation:ty, $example:literal) => {
        $crate::config::declare::Described::Field {
            name: $json,
            kind: <$notation as $crate::config::declare::Notation>::KIND,
            default: None,
            meaning: $meaning,
            example: $example,
        }
    };
    (optional $type:ty, $meaning:expr, $json:literal, $notation:ty, $default:literal, $example:literal) => {
        $crate::config::declare::Described::Field {
            name: $json,
            kind: <$notation as $crate::config::declare::Notation>::KIND,
            default: Some($default),
            meaning: $meaning,
            example: $example,
        }
    };
    (shared $type:ty, $meaning:expr) => {
        $crate::config::declare::Described::Shared(
            &<$type as $crate::config::declare::Part>::OBJECT,
        )
    };
}

/// Words, one of which is written. The first is the default.
macro_rules! words {
    (
        $(#[doc = $intro:literal])+
        pub enum $Type:ident;
        $(#[doc = $first_meaning:literal])+
        $First:ident = $first:literal;
        $($(#[doc = $meaning:literal])+ $Variant:ident = $word:literal;)*
    ) => {
        $(#[doc = $intro])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
        pub enum $Type {
            $(#[doc = $first_meaning])+
            #[default]
            $First,
            $($(#[doc = $meaning])+ $Variant,)*
        }

        impl $Type {
            const WORDS: &'static [(&'static str, Self)] =
                &[($first, Self::$First) $(, ($word, Self::$Variant))*];

            /// The word, as it is written in a configuration.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    Self::$First => $first,
                    $(Self::$Variant => $word,)*
                }
            }
        }

        impl $crate::config::declare::Notation for $Type {
            type Value = Self;
            const EXAMPLE: &'static str = $first;
            #[cfg(feature = "cli")]
            const KIND: $crate::config::declare::Kind =
                $crate::config::declare::Kind::Words(&[$first $(, $word)*]);

            fn read(at: $crate::config::read::At<'_>) -> Option<Self> {
                at.word(Self::WORDS)
            }
        }
    };
}

/// A text of some form: what it is called, an example, its reader and its pattern.
macro_rules! text {
    (
        $(#[doc = $meaning:literal])+
        $Notation:ident: $Value:ty = $what:literal, $example:literal, $read:path, $pattern:expr;
    ) => {
        $(#[doc = $meaning])+
        pub(crate) enum $Notation {}

        impl $crate::config::declare::Notation for $Notation {
            type Value = $Value;
            const EXAMPLE: &'static str = $example;
            #[cfg(feature = "cli")]
            const KIND: $crate::config::declare::Kind = $crate::config::declare::Kind::Text {
                what: $what,
                pattern: || String::from($pattern),
            };

            fn read(at: $crate::config::read::At<'_>) -> Option<$Value> {
                $read(at)
            }
        }
    };
}

/// The words of a table, for its kind.
#[cfg(feature = "cli")]
#[allow(clippy::indexing_slicing)] // While compiling.
pub(crate) const fn words_of<T, const N: usize>(
    table: &[(&'static str, T); N],
) -> [&'static str; N] {
    let mut words = [""; N];
    let mut index = 0;
    while index < N {
        words[index] = table[index].0;
        index += 1;
    }
    words
}

/// A whole number within limits.
macro_rules! whole {
    ($(#[doc = $meaning:literal])+ $Notation:ident: $Value:ty = $what:literal, $least:literal, $most:literal;) => {
        $(#[doc = $meaning])+
        pub(crate) enum $Notation {}

        impl $crate::config::declare::Notation for $Notation {
            type Value = $Value;
            const EXAMPLE: &'static str = stringify!($least);
            #[cfg(feature = "cli")]
            const KIND: $crate::config::declare::Kind =
                $crate::config::declare::Kind::Whole($least, $most);

            fn read(at: $crate::config::read::At<'_>) -> Option<$Value> {
                <$Value>::try_from(at.whole($what, $least, $most)?).ok()
            }
        }
    };
}

#[cfg(feature = "cli")]
pub(crate) use described;
pub(crate) use {choice, first, name, notation_of_object, object, read_field, text, whole, words};
