-- Each index of the events is one more page to write for each of them. An object's are found by events_same, which begins with the object; those
-- over their age are looked for once an hour, among all.
DROP INDEX events_by_object;
DROP INDEX events_by_age;
