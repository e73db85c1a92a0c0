# Records of other types are counted and left alone, wherever the type is named. The first name that is not empty counts.
drafts d1

epoch
0@0 t=1000 eventType=DraftRenamed {"whatever": 1}
0@1 t=1000 ce_type=DraftRenamed null
0@2 t=1000 {"eventType": "DraftRenamed"}
0@3 t=1000 {"type": "DraftRenamed", "jobId": "a"}
0@4 t=1000 ce_type=ContentCreated eventType=DraftRenamed a d1
---
0@0 skipped
0@1 skipped
0@2 skipped
0@3 skipped
0@4 applied

d1: images of 0@4, job a, t=1000; remembers a
deleted keys: d1
