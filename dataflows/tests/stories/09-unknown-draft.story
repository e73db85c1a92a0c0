# Events of a draft that has no row are rejected, all of them. When the draft is there, the same job is welcome.
drafts d1

epoch
0@0 t=1000 a d9
0@1 t=1000 b d9
0@2 t=1000 a d1

drafts d9
epoch
0@3 t=1000 a d9
---
0@0 rejected, unknown-draft: no such row, 4 tries; dead letter of t=1000
0@1 rejected, unknown-draft: no such row, 4 tries; dead letter of t=1000
0@2 applied
0@3 applied

d1: images of 0@2, job a, t=1000; remembers a
d9: images of 0@3, job a, t=1000; remembers a
deleted keys: d1 d9
