"Caption files as they should not be: each ends in a report, or in a sentence that names the file and says what to do"
import json, pickle, random
from pathlib import Path
import pandas as pd
import pytest
from PIL import Image
from caption_nb.core import InputError
from caption_nb.data.clean import explain
from caption_nb.data.readers import read_captions
from caption_nb.data.table import Table, make_table

@pytest.fixture
def folder(tmp_path):
    for n in 'abc': Image.new('RGB', (8, 8)).save(tmp_path/f'{n}.jpg')
    return tmp_path

def karpathy(*captions, **more): # picture a has the captions in question, b a good one
    return dict(images=[dict(filename='a.jpg', split='train', sentences=[dict(raw=c) for c in captions], **more),
                        dict(filename='b.jpg', split='train', sentences=[dict(raw='A good one.')])])

def save(folder, content, name='captions.json'):
    path = folder/name
    path.write_bytes(content if isinstance(content, bytes) else content.encode('utf-8', 'surrogatepass') if isinstance(content, str) else json.dumps(content).encode())
    return path

GOOD = karpathy('A dog.')

# ---- captions: reported, skipped or mended; fatal when strict

PROBLEMS = {
    'empty':           (['', 'A dog.'], 'empty caption', ['A dog.']),
    'white space':     ([' \t\r\n', 'A dog.'], 'empty caption', ['A dog.']),
    'punctuation':     (['?!...', 'A dog.'], 'caption without words', ['A dog.']),
    'emoji alone':     (['🐕🐕', 'A dog.'], 'caption without words', ['A dog.']),
    '10,000 words':    (['dog '*10_000, 'A dog.'], 'caption too long', ['A dog.']),
    'endless word':    (['x'*50_000, 'A dog.'], 'caption too long', ['A dog.']),
    'control':         (['A\x00 d\x1bog.'], 'control characters', ['A  d og.']),
    'direction marks': (['A \u202edog\u202c.'], 'control characters', ['A  dog .']),
    'BOM inside':      (['\ufeffA dog.'], 'byte-order mark in a caption', ['A dog.']),
    'half a pair':     (['A dog \ud83d.'], 'broken character', ['A dog \ufffd.']),
    'number':          ([5, 'A dog.'], 'caption is not text', ['A dog.']),
    'null':            ([None, 'A dog.'], 'caption is not text', ['A dog.']),
    'nested list':     ([['A dog.'], 'A dog.'], 'caption is not text', ['A dog.']),
}

@pytest.mark.parametrize('case', PROBLEMS)
def test_bad_caption(folder, case):
    captions,kind,kept = PROBLEMS[case]
    path = save(folder, karpathy(*captions))
    t = read_captions(path)
    assert t.rows.captions.tolist()==[kept, ['A good one.']]
    assert t.report['problems'][kind]['count']==1 and 'images[0]' in t.report['problems'][kind]['examples'][0]
    assert kind in explain(t.report)
    for suffix in ('.json', '.csv', '.parquet'): assert Table.load(t.save(folder/'out'/f't{suffix}')).fingerprint()==t.fingerprint()
    with pytest.raises(InputError) as e: read_captions(path, strict=True)
    for part in (str(path), kind, 'images[0]', 'Without strict it is'): assert part in str(e.value)

@pytest.mark.parametrize('caption,kind', [('A dog 🐕 runs.', 'emoji'), ('كلب يجري', 'right-to-left text'), ('A d\ufffdg.', 'replacement character'),
                                          ('Salt &amp; pepper.', 'html entity'), ('A cafÃ©.', 'wrongly decoded text')])
def test_unusual_caption_is_kept_and_noted(folder, caption, kind):
    t = read_captions(save(folder, karpathy(caption)), strict=True)
    assert t.rows.captions[0]==[caption] and t.report['notes'][kind]['count']==1

# ---- ids, pictures, references

def test_duplicate_id(folder):
    path = save(folder, dict(images=GOOD['images']+[dict(filename='a.jpg', sentences=[dict(raw='Again.')])]))
    t = read_captions(path)
    assert t.rows.image_id.tolist()==['a', 'b'] and t.rows.captions[0]==['A dog.']
    assert 'images[2]' in t.report['problems']['duplicate id']['examples'][0]
    with pytest.raises(InputError, match='duplicate id .*give every picture an id of its own'): read_captions(path, strict=True)

def test_duplicate_key_in_json(folder):
    t = read_captions(save(folder, '{"a.jpg": ["A dog."], "a.jpg": ["A cat."], "b.jpg": ["x"]}'))
    assert t.references()=={'a':['A dog.'], 'b':['x']} and t.report['problems']['duplicate id']['count']==1

def test_ids_of_mixed_type_are_one_id(folder):
    rows = [dict(image_id=7, image='a.jpg', caption='x'), dict(image_id='7', image='a.jpg', caption='y'), dict(image_id=7.0, image='a.jpg', caption='z')]
    t = read_captions(save(folder, rows))
    assert t.references()=={'7':['x', 'y', 'z']} and 'ids of mixed type' in t.report['notes']

def test_one_id_two_files(folder):
    t = read_captions(save(folder, [dict(image_id=7, image='a.jpg', caption='x'), dict(image_id=7, image='b.jpg', caption='y')]))
    assert t.references()=={'7':['x']} and t.report['problems']['one id, two files']['count']==1

@pytest.mark.parametrize('bad', [None, True, 1.5, '', ' ', [1]])
def test_bad_id(folder, bad):
    path = save(folder, [dict(image_id=bad, caption='x'), dict(image_id=2, caption='y')])
    assert read_captions(path).report['problems']['bad id']['examples'][0].startswith('row 0')
    with pytest.raises(InputError, match='an id must be a non-empty string or a whole number'): read_captions(path, strict=True)

def test_missing_picture(folder):
    path = save(folder, dict(images=GOOD['images']+[dict(filename='nowhere.jpg', sentences=[dict(raw='x')])]))
    t = read_captions(path)
    assert len(t)==2 and "'nowhere.jpg'" in t.report['problems']['missing picture']['examples'][0]
    with pytest.raises(InputError, match='images='): read_captions(path, strict=True)

def test_wrong_picture_folder(folder):
    (folder/'other').mkdir()
    with pytest.raises(InputError, match='none of its 2 pictures, such as a.jpg, is in .*other; say with images='): read_captions(save(folder, GOOD), images=folder/'other')
    with pytest.raises(InputError, match='no such folder of pictures'): read_captions(save(folder, GOOD), images=folder/'none')

def test_missing_references_are_noted(folder):
    t = read_captions(save(folder, karpathy()))
    assert t.report['notes']['picture without captions']['examples']==["images[0]: 'a'"] and 'a' not in t.references()

def test_captions_of_an_unknown_picture(folder):
    path = save(folder, dict(images=[dict(id=1, file_name='a.jpg')], annotations=[dict(image_id=1, caption='x'), dict(image_id=9, caption='y')]))
    assert read_captions(path).report['problems']['captions of an unknown picture']['examples']==["annotations[1]: '9'"]

# ---- files

def test_bom_and_crlf(folder):
    plain = read_captions(save(folder, GOOD)).fingerprint()
    assert read_captions(save(folder, b'\xef\xbb\xbf'+json.dumps(GOOD, indent=1).replace('\n', '\r\n').encode())).fingerprint()==plain
    csv = 'image,caption\na.jpg,A dog.\nb.jpg,A good one.\n'
    for raw in (csv.encode(), b'\xef\xbb\xbf'+csv.replace('\n', '\r\n').encode(), csv.replace('\n', '\r').encode(), csv.encode('utf-16')):
        assert read_captions(save(folder, raw, 'c.csv')).fingerprint()==plain

def test_json_cut_off_anywhere(folder):
    whole = json.dumps(GOOD).encode()
    for n in range(len(whole)):
        path = save(folder, whole[:n])
        with pytest.raises(InputError) as e: read_captions(path)
        assert str(path) in str(e.value)

def test_random_damage_never_ends_in_another_error(folder):
    rng = random.Random(0)
    contents = {'captions.json':json.dumps(GOOD), 'r.json':json.dumps([dict(image='a.jpg', caption='x'), dict(image='b.jpg', caption=['y','z'])]),
                'n.json':json.dumps({'a.jpg':['x'], 'b.jpg':['y']}), 'c.csv':'image,caption\na.jpg,"x, y"\nb.jpg,z\n', 't.txt':'a.jpg#0\tx\nb.jpg#0\ty\n',
                'o.json':json.dumps(dict(images=[dict(id=1, file_name='a.jpg')], annotations=[dict(image_id=1, caption='x')])), 'l.jsonl':'{"id": 1, "caption": "x"}\n"y"\n'}
    for _ in range(1500):
        name,text = rng.choice(list(contents.items()))
        raw = bytearray(text.encode())
        for _ in range(rng.randint(1, 3)):
            i = rng.randrange(len(raw))
            raw[i:i+rng.randrange(4)] = rng.choice([b'', b'null', b'5', b'[]', b'{}', b'""', b'\x00', b'\xff', b',', b'"', b'[', b'\n', b'true', b'1e999', b'NaN'])
        try: read_captions(save(folder, bytes(raw), name))
        except InputError as e: assert name in str(e)

SENTENCES = { # file name, content, what the sentence must say
    'empty file':        ('captions.json', b'', 'is not valid JSON'),
    'no entries':        ('captions.json', dict(images=[]), 'no usable picture or caption in it. It holds no entries'),
    'nothing usable':    ('captions.json', dict(images=[dict(filename='zzz.jpg', sentences=[dict(raw='')])]), '1 x empty caption (images[0]'),
    'unknown layout':    ('captions.json', dict(version=1, data=5), 'is in no layout known here: {"version": 1, "data": 5}. Known are karpathy, coco'),
    'instances':         ('captions.json', dict(images=[dict(id=1)], annotations=[dict(image_id=1, bbox=[0,0,1,1])]), 'use captions_*.json'),
    'not UTF-8':         ('captions.csv', 'image,caption\na.jpg,Ein schöner Hund\n'.encode('latin-1'), 'line 2). Save it as UTF-8'),
    'JSON not UTF-8':    ('captions.json', '{"a.jpg": ["schön"]}'.encode('latin-1'), 'is not UTF-8 text'),
    'no header':         ('captions.csv', 'x,y,z\n1,2,3\n', 'name them image and caption in the first line'),
    'open quote':        ('captions.csv', 'image,caption\na.jpg,"'+'x\n'*200_000, 'never closed'),
    'empty csv':         ('captions.csv', b'', 'it needs a line with column names'),
    'binary as parquet': ('captions.parquet', b'PAR1 and then nonsense', 'cannot be read as parquet'),
    'deep':              ('captions.json', '['*200_000, 'nested too deeply'),
    'pickled program':   ('c.pickle', pickle.dumps(print), 'is refused: it holds builtins.print. Only pickles of plain lists'),
    'cut pickle':        ('c.pickle', pickle.dumps(['a dog'])[:-4], 'is refused'),
    'other suffix':      ('captions.docx', b'x', 'is in no layout known here'),
}

@pytest.mark.parametrize('case', SENTENCES)
def test_unusable_file(folder, case):
    name,content,say = SENTENCES[case]
    path = save(folder, content, name)
    with pytest.raises(InputError) as e: read_captions(path)
    assert str(path) in str(e.value) and say in str(e.value), str(e.value)

def test_pickle_runs_nothing(folder):
    class Bomb:
        def __reduce__(self): return Path.touch, (folder/'boom',)
    with pytest.raises(InputError, match='is refused'): read_captions(save(folder, pickle.dumps(['a', Bomb()]), 'c.pkl'))
    assert not (folder/'boom').exists()

def test_wrong_names(folder):
    with pytest.raises(InputError, match='no such file or folder. Looked in'): read_captions(folder/'none.json')
    with pytest.raises(InputError, match='no such file or folder. Looked in'): read_captions(folder/'none')
    with pytest.raises(InputError, match=r"is not in layout 'kaparthy'; it looks like 'karpathy'. Known are auto, karpathy"): read_captions(save(folder, GOOD), layout='kaparthy')
    with pytest.raises(InputError, match=r"no split 'test'; it has \['train'\]"): read_captions(save(folder, GOOD), split='test')
    (folder/'empty').mkdir()
    with pytest.raises(InputError, match='no usable picture or caption'): read_captions(folder/'empty')

def test_row_with_too_many_fields(folder):
    t = read_captions(save(folder, 'image,caption\na.jpg,A dog, a cat\nb.jpg,"A dog, a cat"\n', 'c.csv'))
    assert t.references()=={'b':['A dog, a cat']} and t.report['problems']['unreadable row']['examples'][0].startswith('line 2 has 3 fields, not 2')

def test_broken_lines_of_jsonl(folder):
    t = read_captions(save(folder, '{"image": "a.jpg", "caption": "x"}\n{"image": "b.jpg", "capt\n{"image": "b.jpg", "caption": "y"}\n', 'c.jsonl'))
    assert t.references()=={'a':['x'], 'b':['y']} and t.report['problems']['unreadable row']['examples'][0].startswith('line 2')

def test_pictures_inside_parquet(folder):
    pd.DataFrame(dict(image=[dict(bytes=b'x', path=None)], caption=['x'])).to_parquet(folder/'c.parquet')
    with pytest.raises(InputError, match='write the pictures to files'): read_captions(folder/'c.parquet')

# ---- tables

def test_table_names_its_row():
    for row,say in ((dict(image_id=3, captions='one string'), r'row 1 \(image_id .3.\): captions must be a list of strings, got one string; write \['),
                    (dict(image_id=None), 'row 1: image_id must be a non-empty string or a whole number'),
                    (dict(image_id='0'), 'is in rows 0 and 1; every picture needs one row'),
                    (dict(image_id=3, captions=['a', None]), r'captions\[1\] must be a string')):
        with pytest.raises(InputError, match='my data.*'+say): make_table([dict(image_id=0), row], source='my data')

def test_damaged_table_file(folder):
    t = make_table([dict(image_id=i, captions=['x']) for i in range(50)])
    for suffix in ('.parquet', '.json'):
        path = t.save(folder/f't{suffix}')
        path.write_bytes(path.read_bytes()[:-30])
        with pytest.raises(InputError) as e: Table.load(path)
        assert str(path) in str(e.value)

def test_a_failed_save_leaves_the_old_file(folder):
    path = make_table([dict(image_id=1, captions=['old'])]).save(folder/'t.json')
    with pytest.raises(InputError, match='cannot store'): make_table([dict(image_id=1, thing=object())]).save(path)
    assert Table.load(path).references()=={'1':['old']} and [p.name for p in folder.glob('*t.json*')]==['t.json']
