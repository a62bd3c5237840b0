"Every kind of picture file that people have: it opens as upright RGB, or the error names the file and the reason"
import io, os, stat, struct, zlib
import numpy as np
import pytest
from PIL import Image
from caption_nb.core import Captioner, Caption, InputError, list_images, open_image, pictures

RED = Image.new('RGB', (40, 20), (250, 5, 5))

def jpeg(im=RED, **kw):
    b = io.BytesIO()
    im.save(b, 'JPEG', **kw)
    return b.getvalue()

def png_header(w, h):
    "A valid PNG of w x h pixels that holds next to no data"
    def chunk(kind, data): return struct.pack('>I', len(data))+kind+data+struct.pack('>I', zlib.crc32(kind+data))
    return b'\x89PNG\r\n\x1a\n'+chunk(b'IHDR', struct.pack('>IIBBBBB', w, h, 8, 2, 0, 0, 0))+chunk(b'IDAT', zlib.compress(b'\0'*10))+chunk(b'IEND', b'')

def good(tmp):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 40, 3), dtype=np.uint8))
    turned = Image.Exif()
    turned[0x112] = 8
    yield 'grey.jpg', lambda p: RED.convert('L').save(p)
    yield 'cmyk.jpg', lambda p: RED.convert('CMYK').save(p)
    yield 'palette.png', lambda p: RED.convert('P').save(p)
    yield 'palette_clear.gif', lambda p: RED.convert('P').save(p, transparency=0)
    yield 'one_bit.png', lambda p: RED.convert('1').save(p)
    yield 'alpha.png', lambda p: RED.convert('RGBA').save(p)
    yield 'grey_alpha.png', lambda p: RED.convert('LA').save(p)
    yield 'sixteen_bit.png', lambda p: Image.fromarray(np.full((20, 40), 40000, np.uint16)).save(p)
    yield 'sixteen_bit.tif', lambda p: Image.fromarray(np.full((20, 40), 40000, np.uint16)).save(p)
    yield 'float.tif', lambda p: Image.fromarray(np.full((20, 40), .5, np.float32)).save(p)
    yield 'animated.gif', lambda p: RED.save(p, save_all=True, append_images=[noise])
    yield 'animated.webp', lambda p: RED.save(p, save_all=True, append_images=[noise])
    yield 'progressive.jpg', lambda p: noise.save(p, progressive=True)
    yield 'exif.jpg', lambda p: RED.rotate(90, expand=True).save(p, exif=turned)
    yield 'png_called.jpg', lambda p: RED.save(p, 'PNG')
    yield 'bitmap.bmp', lambda p: RED.save(p)
    yield 'ünï cödé ☃.png', lambda p: RED.save(p)

def bad(tmp):
    yield 'zero.jpg', b'', 'empty'
    yield 'text.png', b'hello', 'no picture format'
    yield 'html.jpg', b'<html>404 not found</html>', 'no picture format'
    yield 'cut.jpg', jpeg(RED.resize((400, 400)))[:400], 'cut off'
    yield 'cut_header.png', png_header(4, 4)[:20], 'cannot be read'
    yield 'bomb.png', png_header(60000, 60000), 'pixels, more than'
    yield 'wide.png', png_header(30000, 5000), 'pixels, more than'

@pytest.mark.parametrize('i', range(17))
def test_opens(tmp_path, i):
    name,make = list(good(tmp_path))[i]
    make(tmp_path/name)
    im = open_image(tmp_path/name)
    assert im.mode=='RGB' and im.size==(40, 20), (name, im.mode, im.size)
    if name in ('cmyk.jpg', 'palette.png', 'alpha.png', 'animated.gif', 'exif.jpg', 'png_called.jpg'):
        assert np.abs(np.asarray(im, int).mean((0, 1))-[250, 5, 5]).max()<12, name

def test_one_pixel(tmp_path):
    Image.new('RGB', (1, 1)).save(tmp_path/'a.png')
    assert open_image(tmp_path/'a.png').size==(1, 1)

def test_thirty_thousand_pixels_wide(tmp_path):
    Image.new('L', (30000, 2)).save(tmp_path/'a.png')
    assert open_image(tmp_path/'a.png').size==(30000, 2)

@pytest.mark.parametrize('i', range(7))
def test_refused_with_a_reason(tmp_path, i):
    name,data,why = list(bad(tmp_path))[i]
    (tmp_path/name).write_bytes(data)
    with pytest.raises(InputError) as e: open_image(tmp_path/name)
    assert name in str(e.value) and why in str(e.value)

def test_folders_and_links_and_rights(tmp_path):
    (tmp_path/'folder.jpg').mkdir()
    with pytest.raises(InputError, match='folder.jpg'): open_image(tmp_path/'folder.jpg')
    (tmp_path/'link.jpg').symlink_to(tmp_path/'nowhere.jpg')
    with pytest.raises(InputError, match='no such file'): open_image(tmp_path/'link.jpg')
    assert list_images(tmp_path)==[]
    RED.save(tmp_path/'shut.png')
    os.chmod(tmp_path/'shut.png', 0)
    if os.access(tmp_path/'shut.png', os.R_OK): pytest.skip('this user may read everything')
    with pytest.raises(InputError, match='shut.png'): open_image(tmp_path/'shut.png')

def test_one_bad_picture_does_not_cost_the_others(tmp_path):
    for name,data,_ in bad(tmp_path): (tmp_path/name).write_bytes(data)
    for name,make in good(tmp_path): make(tmp_path/name)
    class Sizes(Captioner):
        def caption_batch(self, images): return [Caption(None, str(im.size)) for im in images]
    c = Sizes()
    caps = c(tmp_path, batch_size=4, quiet=True)
    assert {x.image_id for x in caps}=={n for n,_ in good(tmp_path)} and set(c.skipped)=={n for n,_,_ in bad(tmp_path)}
    with pytest.raises(InputError): c(tmp_path, strict=True, quiet=True)

def test_same_picture_twice_keeps_both(tmp_path):
    RED.save(tmp_path/'a.png')
    ids = [k for k,_ in pictures([tmp_path/'a.png', tmp_path/'a.png'])]
    assert len(set(ids))==2
