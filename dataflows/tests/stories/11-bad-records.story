# What can never succeed goes to the dead letters, byte for byte, with the reason. Its neighbours are unharmed.
drafts d1

epoch
0@0 t=1000 null
0@1 t=1000 {"jobId": "a",
0@2 t=1000 ["a"]
0@3 t=1000 {"jobId": "a"}
0@4 t=1000 {"jobId": " ", "eventDraftId": "d1", "imageUrls": {}}
0@5 t=1000 {"jobId": "a", "jobId": "b", "eventDraftId": "d1", "imageUrls": {}}
0@6 t=1000 {"jobId": "a", "eventDraftId": "d1", "imageUrls": {"simple": "https://cdn/s"}}
0@7 t=1000 {"jobId": "a", "eventDraftId": "d1", "imageUrls": {"simple": "https:///x", "fancy": "https://cdn/f", "trendy": "https://cdn/t"}}
0@8 t=1000 a d1
---
0@0 rejected, null-value: expected a JSON object, got a tombstone (null value); dead letter of t=1000
0@1 rejected, not-json: expected one JSON text: EOF while parsing a value at line 1 column 14; dead letter of t=1000
0@2 rejected, not-an-object: expected a JSON object, got an array; dead letter of t=1000
0@3 rejected, missing-field: eventDraftId: missing; dead letter of t=1000
0@4 rejected, blank-id: jobId: expected an id, got blank text of 1 bytes; dead letter of t=1000
0@5 rejected, duplicate-key: jobId: expected once, got the key again in the same object; dead letter of t=1000
0@6 rejected, missing-style: imageUrls: expected simple, fancy and trendy, fancy is missing; dead letter of t=1000
0@7 rejected, bad-url: imageUrls.simple: expected an absolute http or https URL by RFC 3986, got one with an empty host; dead letter of t=1000
0@8 applied

d1: images of 0@8, job a, t=1000; remembers a
deleted keys: d1
