//! What is made of the table in `columns.rs`: the types that have a field for each member, and all that has to go through the
//! members one by one.

/// A line of the table: `name: Kind, at most limit;`, where `Kind` is a [`Member`](super::member::Member), and `limit`, which only
/// texts have, a field of [`TextLimits`](super::TextLimits). Members stand in the table's order between `id` and `user_id`.
macro_rules! resource {
    ($($(#[$doc:meta])* $name:ident: $kind:ident $(, at most $limit:ident)?;)+) => {
        use super::column::{Column, ColumnKind, ColumnSink, ColumnSource};
        use super::json::{JsonParser, JsonValue, Members};
        use super::member::{Member, carried, kept, view};
        use super::error::CommandError;
        use super::validation::{BodyError, TextLimits, check_length};
        use super::{InvalidTodoId, Timestamp, TodoId};

        /// The columns of a todo, in the order in which they stand in JSON and in every statement.
        pub const TODO_COLUMNS: &[Column] = &[
            Column { name: "id", kind: ColumnKind::Id },
            $(Column { name: stringify!($name), kind: <$kind as Member>::KIND },)+
            Column { name: "user_id", kind: ColumnKind::Text },
            Column { name: "created_at", kind: ColumnKind::Time },
            Column { name: "updated_at", kind: ColumnKind::Time },
        ];

        /// The names that mean something in a todo, a request or a command: 32 at most, as many as `json.rs` has bits for.
        pub(super) const MEMBER_NAMES: &[&str] =
            &["action", "id", $(stringify!($name),)+ "user_id", "requested_at", "created_at", "updated_at"];
        const _: () = assert!(MEMBER_NAMES.len() <= u32::BITS as usize);

        /// A todo, as stored and as shown.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Todo {
            /// Its id, given by the API that accepted it.
            pub id: TodoId,
            $($(#[$doc])* pub $name: kept!($kind),)+
            /// The `sub` of the token that created it; only that user may change it.
            pub user_id: String,
            /// `requested_at` of the command that created it.
            pub created_at: Timestamp,
            /// The latest `requested_at` of the commands that changed it.
            pub updated_at: Timestamp,
        }

        impl Todo {
            /// Gives its values, in the order of [`TODO_COLUMNS`].
            pub fn give_columns<'t>(&'t self, columns: &mut impl ColumnSink<'t>) {
                columns.id(self.id);
                $(<$kind>::give(<$kind>::of_kept(&self.$name), columns);)+
                columns.text(&self.user_id);
                columns.time(self.created_at);
                columns.time(self.updated_at);
            }

            /// A todo of these values, which come in the order of [`TODO_COLUMNS`].
            ///
            /// # Errors
            /// The first that the source has.
            pub fn take_columns<S: ColumnSource>(columns: &mut S) -> Result<Todo, S::Error> {
                Ok(Todo {
                    id: columns.id()?,
                    $($name: <$kind>::take(columns)?,)+
                    user_id: columns.text()?,
                    created_at: columns.time()?,
                    updated_at: columns.time()?,
                })
            }

            /// Bytes of its texts.
            pub fn text_bytes(&self) -> usize {
                self.user_id.len() $(+ <$kind>::text_bytes(<$kind>::of_kept(&self.$name)))+
            }

            pub(super) fn write_members(&self, json: &mut Vec<u8>) {
                $(
                    json.extend_from_slice(concat!(",\"", stringify!($name), "\":").as_bytes());
                    <$kind>::write(<$kind>::of_kept(&self.$name), json);
                )+
            }
        }

        /// What a command does to its todo.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Action<'a> {
            /// Makes the todo, unless it is there.
            Create {
                $($(#[$doc])* $name: carried!($kind, 'a),)+
            },
            /// Changes the members that are given, of a todo that is there and belongs to the user. `None` keeps what it has.
            Update {
                $($(#[$doc])* $name: Option<carried!($kind, 'a)>,)+
            },
            /// Removes a todo that belongs to the user.
            Delete,
        }

        impl Action<'_> {
            /// Bytes of its texts.
            pub(super) fn text_bytes(&self) -> usize {
                match self {
                    Action::Create { $($name,)+ } => 0 $(+ <$kind>::text_bytes(<$kind>::of_carried($name)))+,
                    Action::Update { $($name,)+ } => {
                        0 $(+ $name.as_ref().map_or(0, |given| <$kind>::text_bytes(<$kind>::of_carried(given))))+
                    }
                    Action::Delete => 0,
                }
            }

            pub(super) fn write_members(&self, json: &mut Vec<u8>) {
                let ($($name,)+) = match self {
                    Action::Create { $($name,)+ } => ($(Some($name),)+),
                    Action::Update { $($name,)+ } => ($($name.as_ref(),)+),
                    Action::Delete => return,
                };
                $(
                    if let Some(given) = $name {
                        json.extend_from_slice(concat!(",\"", stringify!($name), "\":").as_bytes());
                        <$kind>::write(<$kind>::of_carried(given), json);
                    }
                )+
            }

            /// The todo that a create makes; `None` for another action.
            pub(super) fn made(&self, id: TodoId, user_id: &str, at: Timestamp) -> Option<Todo> {
                let Action::Create { $($name,)+ } = self else { return None };
                Some(Todo {
                    id,
                    $($name: <$kind>::keep(<$kind>::of_carried($name)),)+
                    user_id: user_id.to_owned(),
                    created_at: at,
                    updated_at: at,
                })
            }

            /// Changes what an update brings; says whether something differs afterwards. Other actions change nothing.
            pub(super) fn change(&self, todo: &mut Todo) -> bool {
                let mut differs = false;
                if let Action::Update { $($name,)+ } = self {
                    $(
                        if let Some(given) = $name
                            && <$kind>::of_kept(&todo.$name) != <$kind>::of_carried(given)
                        {
                            differs = true;
                            <$kind>::replace(&mut todo.$name, <$kind>::of_carried(given));
                        }
                    )+
                }
                differs
            }
        }

        /// The body of `POST /todos`, checked; texts borrow from the request's own bytes.
        #[derive(Debug, PartialEq, Eq)]
        pub struct NewTodo<'a> {
            $($(#[$doc])* pub $name: view!($kind, 'a),)+
        }

        impl<'a> NewTodo<'a> {
            /// Reads and checks a body, in place: strings are unescaped inside `body`. Members that are absent or null are empty
            /// or false.
            ///
            /// # Errors
            /// [`BodyError`] names the member and the reason.
            pub fn from_json(
                body: &'a mut [u8],
                limits: TextLimits,
                parser: &mut JsonParser,
            ) -> Result<NewTodo<'a>, BodyError> {
                NewTodo::of_members(parser.parse(body)?.members(), limits)
            }

            /// Reads and checks a body that is an array of at most `max` of them, as [`NewTodo::from_json`] does. One that is wrong
            /// has all refused.
            ///
            /// # Errors
            /// [`BodyError`] names the todo by its number, counted from 0, the member and the reason.
            pub fn all_from_json(
                body: &'a mut [u8],
                limits: TextLimits,
                max: usize,
                parser: &mut JsonParser,
            ) -> Result<Vec<NewTodo<'a>>, BodyError> {
                let parsed = parser.parse_text(body)?;
                let len = parsed.array_len().unwrap_or(0);
                if parsed.array_len() == Some(0) {
                    return Err(BodyError::whole("the array has no todos"));
                }
                if len > max {
                    return Err(BodyError::whole(format!("the array has {len} todos; at most {max} are taken at once")));
                }
                let mut todos = Vec::with_capacity(len);
                parsed.each_element(|index, members| {
                    todos.push(NewTodo::of_members(members, limits).map_err(|error| error.at(index))?);
                    Ok(())
                })?;
                Ok(todos)
            }

            fn of_members(members: Members<'_, 'a>, limits: TextLimits) -> Result<NewTodo<'a>, BodyError> {
                let mut given = TodoPatch::default();
                members.each(MEMBER_NAMES, |name, value| given.take(name, value))?;
                let required = |name| BodyError::new(name, "is required");
                $(
                    let name = stringify!($name);
                    let $name = given.$name.or_else(<$kind>::absent).ok_or_else(|| required(name))?;
                    <$kind>::check(name, $name)?;
                    $(check_length(name, $name, limits.$limit)?;)?
                )+
                Ok(NewTodo { $($name,)+ })
            }
        }

        impl<'a> From<NewTodo<'a>> for Action<'a> {
            fn from(new: NewTodo<'a>) -> Action<'a> {
                Action::Create { $($name: new.$name.into(),)+ }
            }
        }

        /// The body of `PUT /todos/:id`, checked; `None` keeps what the todo has.
        #[derive(Debug, Default, PartialEq, Eq)]
        pub struct TodoPatch<'a> {
            $($(#[$doc])* pub $name: Option<view!($kind, 'a)>,)+
        }

        impl<'a> TodoPatch<'a> {
            /// Reads and checks a body, but for the lengths of its texts, in place: strings are unescaped inside `body`.
            ///
            /// # Errors
            /// [`BodyError`] names the member and the reason.
            pub fn from_json(body: &'a mut [u8], parser: &mut JsonParser) -> Result<TodoPatch<'a>, BodyError> {
                let mut patch = TodoPatch::default();
                parser.parse(body)?.each(MEMBER_NAMES, |name, value| patch.take(name, value))?;
                $(patch.$name.map_or(Ok(()), |given| <$kind>::check(stringify!($name), given))?;)+
                Ok(patch)
            }

            /// Checks the lengths of its texts. A text that the todo has already may be as long as it is: clients send back what
            /// they have read, and other programs may have made it longer than this API would. `todo` looks it up.
            ///
            /// # Errors
            /// [`BodyError`] names the member and its length.
            pub fn check_lengths(&self, limits: TextLimits, todo: impl Fn() -> Option<Todo>) -> Result<(), BodyError> {
                $($(
                    let checked = self.$name.map_or(Ok(()), |text| check_length(stringify!($name), text, limits.$limit));
                    checked.or_else(|error| match todo() {
                        Some(todo) if self.$name == Some(&todo.$name) => Ok(()),
                        _ => Err(error),
                    })?;
                )?)+
                Ok(())
            }

            /// Whether it makes this todo longer. A todo that nobody has found may be made longer by any text.
            pub fn lengthens(&self, todo: Option<&Todo>) -> bool {
                let (mut before, mut after) = (0, 0);
                $(
                    if let Some(given) = self.$name {
                        before += todo.map_or(0, |todo| <$kind>::text_bytes(<$kind>::of_kept(&todo.$name)));
                        after += <$kind>::text_bytes(given);
                    }
                )+
                after > before
            }

            /// Takes a member of a body; ignores what clients do not set.
            fn take(&mut self, name: &str, value: JsonValue<'a>) -> Result<(), BodyError> {
                match name {
                    $(stringify!($name) => self.$name = <$kind>::read(stringify!($name), value)?,)+
                    _ => {}
                }
                Ok(())
            }
        }

        impl<'a> From<TodoPatch<'a>> for Action<'a> {
            fn from(patch: TodoPatch<'a>) -> Action<'a> {
                Action::Update { $($name: patch.$name.map(Into::into),)+ }
            }
        }

        /// The members of a todo or of a command, as they stand in JSON.
        #[derive(Default)]
        pub(super) struct TodoFields<'a> {
            members: TodoPatch<'a>,
            pub(super) id: Option<TodoId>,
            pub(super) user_id: Option<&'a str>,
            pub(super) created_at: Option<Timestamp>,
            pub(super) updated_at: Option<Timestamp>,
            pub(super) requested_at: Option<Timestamp>,
        }

        impl<'a> TodoFields<'a> {
            pub(super) fn take(&mut self, name: &str, value: JsonValue<'a>) -> Result<(), BodyError> {
                match name {
                    "id" => {
                        let id = value
                            .string("id")?
                            .parse()
                            .map_err(|error: InvalidTodoId| BodyError::new("id", format!("is {error}")))?;
                        self.id = Some(id);
                    }
                    "user_id" => self.user_id = value.optional_string("user_id")?,
                    "created_at" => self.created_at = Some(value.timestamp("created_at")?),
                    "updated_at" => self.updated_at = Some(value.timestamp("updated_at")?),
                    "requested_at" => self.requested_at = Some(value.timestamp("requested_at")?),
                    _ => self.members.take(name, value)?,
                }
                Ok(())
            }

            /// The todo of these members.
            pub(super) fn into_todo(self) -> Result<Todo, BodyError> {
                let missing = |name| BodyError::new(name, "is missing");
                Ok(Todo {
                    id: self.id.ok_or_else(|| missing("id"))?,
                    $(
                        $name: <$kind>::keep(
                            self.members.$name.or_else(<$kind>::absent).ok_or_else(|| missing(stringify!($name)))?,
                        ),
                    )+
                    user_id: self.user_id.ok_or_else(|| missing("user_id"))?.to_owned(),
                    created_at: self.created_at.ok_or_else(|| missing("created_at"))?,
                    updated_at: self.updated_at.ok_or_else(|| missing("updated_at"))?,
                })
            }

            /// The create of these members.
            pub(super) fn create(&self) -> Result<Action<'static>, CommandError> {
                let missing = |name| CommandError::Malformed(BodyError::new(name, "is missing"));
                $(
                    let name = stringify!($name);
                    let $name = self.members.$name.or_else(<$kind>::absent).ok_or_else(|| missing(name))?;
                    <$kind>::check_storable(name, $name).map_err(CommandError::Invalid)?;
                )+
                Ok(Action::Create { $($name: <$kind>::carry_owned($name),)+ })
            }

            /// The update of these members.
            pub(super) fn update(&self) -> Result<Action<'static>, CommandError> {
                $(
                    let $name = self.members.$name.filter(|given| !<$kind>::means_keep(*given));
                    $name
                        .map_or(Ok(()), |given| <$kind>::check_storable(stringify!($name), given))
                        .map_err(CommandError::Invalid)?;
                )+
                Ok(Action::Update { $($name: $name.map(<$kind>::carry_owned),)+ })
            }
        }
    };
}

pub(super) use resource;
